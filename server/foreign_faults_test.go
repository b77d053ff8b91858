//go:build faults

package server

import (
	"strings"
	"testing"
)

// Doors and refreshes that let other tenants' ids through are seen by those who
// judge attempts of that kind; without the fault the same judges find nothing.
func TestProveServerFaultsOfTenants(t *testing.T) {
	for _, kind := range []string{"none", "foreign"} {
		PlantFault(&Fault{Kind: kind})
		err := newTrespass(t).judge()
		if seen := err != nil && strings.Contains(err.Error(), "a refresh with another"); seen != (kind == "foreign") {
			t.Errorf("%s: the judge of messages says %v", kind, err)
		}
		_, err = foreignDoors(newHouse(t, func(o *Options) { o.Auth.Failures = 1000 }))
		if seen := err != nil && strings.Contains(err.Error(), `"rival" "ag1": let in`); seen != (kind == "foreign") {
			t.Errorf("%s: the judge of doors says %v", kind, err)
		}
		PlantFault(nil)
	}
}
