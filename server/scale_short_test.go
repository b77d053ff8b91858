//go:build !prove

package server_test

import "time"

// The short form of each proof, for make test.
const (
	shortForm     = true
	proofSessions = 300
	proofAgents   = 20
	proofRate     = 200
	proofTime     = 3 * time.Second
	proofUsers    = 60
	proofIdle     = 500
	proofIdleStop = 3 * time.Second
	proofOutage   = 3 * time.Second
	proofSettle   = time.Second

	chaosSessions = 300
	chaosAgents   = 20
	chaosRate     = 100
	chaosKills    = 2
	chaosEvery    = 2 * time.Second
	drainRate     = 100
	proofRevoked  = 150
	revokedWithin = 10 * time.Second // beside other tests; alone it is a second

	proofVerifies  = 1
	verifySessions = 100
	verifyAgents   = 10
	verifyRate     = 50
	verifyTime     = 500 * time.Millisecond
	faultFrom      = 100 // deliveries before a fault, at least
	faultSpan      = 400 // and so many more at most, so that it falls before sockets are closed on purpose

	contestLogins = 10
	contestRounds = 3
	contestSpread = 400 * time.Millisecond

	proofHalfOpen = 300
	proofCrowd    = 50
	proofPairs    = 1
	proofMeasure  = 300 * time.Millisecond

	proofStormCrowd = 50
	proofStorm      = 300
	proofGroup      = 100
	proofGroupMiB   = 192
	proofHogs       = 250
	proofResumes    = 20
	proofHistory    = 100
	proofFlood      = 200
	proofHot        = 100 // receivers of one agent
	proofFat        = 500 // events of 48 KiB for a pod that does not take them
)

// How long pods stand still.
var proofStops = []time.Duration{200 * time.Millisecond, 3 * time.Second}
