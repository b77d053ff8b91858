package bench

import (
	"encoding/json"
	"fmt"
	"strings"
)

// kindOf names the type of a scenario; a script's own name is its title.
func kindOf(s Scenario) string {
	return strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", s), "*"), "bench.")
}

// newScenario makes a scenario of this kind from its options as JSON, which is
// how a worker gets them.
func newScenario(kind string, options []byte) (Scenario, error) {
	for _, s := range []Scenario{new(connect), new(fanout), new(takeover), new(million), new(script), new(sweep)} {
		if kindOf(s) != kind {
			continue
		}
		if err := json.Unmarshal(options, s); err != nil {
			return nil, fmt.Errorf("read options of %s: %w", kind, err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("no scenario %q for a crew: is this worker as new as its guide?", kind)
}
