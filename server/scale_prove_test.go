//go:build prove

package server_test

import "time"

// The full form of each proof, for make prove.
const (
	shortForm     = false
	proofSessions = 1500
	proofAgents   = 50
	proofRate     = 500
	proofTime     = 10 * time.Second
	proofUsers    = 1000
	proofIdle     = 15000
	proofIdleStop = 20 * time.Second
	proofOutage   = 30 * time.Second
	proofSettle   = 10 * time.Second

	chaosSessions = 3000
	chaosAgents   = 100
	chaosRate     = 500
	chaosKills    = 30
	chaosEvery    = 10 * time.Second
	drainRate     = 1000
	proofRevoked  = 5000
	revokedWithin = time.Second

	proofVerifies  = 5
	verifySessions = 600
	verifyAgents   = 50
	verifyRate     = 200
	verifyTime     = 4 * time.Second
	faultFrom      = 500  // deliveries before a fault, at least
	faultSpan      = 6000 // and so many more at most, so that it falls before sockets are closed on purpose

	contestLogins = 50
	contestRounds = 200
	contestSpread = 1500 * time.Millisecond

	proofHalfOpen = 10000
	proofCrowd    = 1000
	proofPairs    = 5
	proofMeasure  = 2 * time.Second

	proofStormCrowd = 2000
	proofStorm      = 15000
	proofGroup      = 10000
	proofGroupMiB   = 512
	proofHogs       = 700
	proofResumes    = 200
	proofHistory    = 1000
	proofFlood      = 2000
	proofHot        = 1000 // receivers of one agent
	proofFat        = 4000 // events of 48 KiB for a pod that does not take them
)

// How long pods stand still.
var proofStops = []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second, time.Minute}
