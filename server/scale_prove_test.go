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
	proofOutage   = 10 * time.Second
	proofSettle   = 10 * time.Second
)
