//go:build !prove

package server

import "time"

// How long the model looks for a breach in make test, and at how many schedules
// of a mutation at most.
const (
	modelTime         = 10 * time.Second
	modelMutationTime = 10 * time.Second
	modelMutations    = 3000
)
