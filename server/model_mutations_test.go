//go:build !race

// Not under -race: some mutations take their rule out by reaching into a
// partition from beside (its heard, its early look-ups), which is a race of the
// harness. The whole protocol is run under it by TestProtocolRaces.

package server

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// mutation takes one rule out of a model that is otherwise whole.
type mutation struct {
	rule   rule
	config modelConfig
}

// taking is for mutations that show where sessions are taken over.
func taking(more map[string]int) modelConfig {
	return usual().with(map[string]int{"login": 60, "store": 80, "logout": 0, "select": 0, "fail": 0, "lose": 40}).with(more)
}

// deaf is taking where most kills are lost, so that fences decide.
func deaf(more map[string]int) modelConfig {
	c := taking(more)
	c.deaf = 90
	return c
}

func mutations() []mutation {
	fast := usual()
	flushing := usual().with(map[string]int{"flush": 2})
	return []mutation{
		{ruleEpochsRise, taking(nil)},
		{ruleUnsettledIsInherited, taking(nil)},
		{ruleOpenFences, taking(nil)},
		{ruleReleaseComparesConn, taking(nil)},
		{ruleUnsettledIsFenced, taking(map[string]int{"logout": 10, "fail": 20})},
		{ruleReassertYieldsToLock, taking(map[string]int{"flush": 2})},
		{ruleReassertNamesTheLower, deaf(map[string]int{"flush": 4, "store": 10})},
		{ruleEdgesAreNumbered, fast.with(map[string]int{"late": 30, "past": 30})},
		{ruleNewMasterNewInc, fast.with(map[string]int{"save": 10, "failover": 2})},
		{ruleOwnerHasBoot, taking(map[string]int{"kill": 8, "restart": 60, "late": 20, "past": 60})},
		{ruleUnsettledPrevIsFenced, taking(nil)},
		{ruleSilenceIsFenced, taking(nil)},
		{ruleAnswerAfterTheEnd, taking(nil)},
		{ruleKillNamesEpoch, taking(map[string]int{"arrive": 40, "login": 200, "lose": 0, "store": 5})},
		{ruleReadyAfterOpen, fast},
		{ruleSelectionWaits, fast.with(map[string]int{"select": 30})},
		{ruleLookupAfterPull, fast},
		{ruleIncBelongsToLookup, flushing},
		{ruleFencesAreLookedUp, taking(nil)},
		{ruleMissedRoundBeginsAnew, fast.with(map[string]int{"cut": 20, "store": 150, "own": 0, "logout": 0})},
		{ruleHoleIsRepaired, fast},
		{ruleTakersCheckInc, flushing},
		{ruleWatermarkNeverFalls, fast},
		{ruleAssertThenRepair, flushing},
		{ruleRepairBeginsAgain, flushing},
		{ruleFencesReadAfterEvents, deaf(nil)},
		{ruleCompleteByTheLeader, fast.with(map[string]int{"store": 120, "lose": 20})},
		{ruleSilenceIsServed, fast},
		{ruleResumeToStreamEnd, fast},
		{ruleResumeReadsEndAfterOpen, fast},
		{ruleReplayGoesToTheMark, fast},
	}
}

// TestProveMutations takes out one rule at a time: each time an invariant must
// break. That is what TestProveProtocol's silence is worth.
func TestProveMutations(t *testing.T) {
	for _, m := range mutations() {
		t.Run(string(m.rule), func(t *testing.T) {
			var stats modelStats
			var broken *modelBreach
			schedules, began := 0, time.Now()
			for broken == nil && schedules < modelMutations && time.Since(began) < modelMutationTime {
				rapid.Check(t, func(rt *rapid.T) {
					if broken == nil && time.Since(began) < modelMutationTime {
						schedules++
						broken, _ = runModel(rt, m.rule, m.config, &stats)
					}
				})
			}
			if broken == nil {
				t.Fatalf("%d schedules without this rule broke nothing: %+v", schedules, stats)
			}
			t.Logf("breaks %s after %d schedules, %d deliveries, %v: %s",
				broken.invariant, schedules, stats.Deliveries, time.Since(began).Round(time.Millisecond), broken.what)
		})
	}
}

// TestProveProtocol is the protocol under random schedules: nothing breaks it.
func TestProveProtocol(t *testing.T) { proveProtocol(t, modelTime) }
