//go:build prove

package server

import "time"

// How long the model looks for a breach in make prove, and at how many
// schedules of a mutation at most.
const (
	modelTime         = 3 * time.Minute
	modelMutationTime = time.Minute
	modelMutations    = 30000
)
