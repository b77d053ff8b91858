package server

// rule is one sentence of the protocol; a mutation is the model without it.
//
// Some rules are not here. That open, joins and re-assertions answer STALE, that
// open checks the lock, and that reassert yields to a fence: without one of them
// the others still keep all invariants. What only hours show (fences age by when
// they were written, unverified locks are lost, the clock counts suspension), a
// tombstone's use after lost keys, the stream's id in batches and the lock that a
// resume reads: no schedule tried so far has shown their want. They have tests of
// their own in redisx, session and partition_test.go.
type rule string

// Rules of the scripts.
const (
	ruleEpochsRise            rule = "acquire: epoch = max(cur.epoch+1, e+1, TIME)"
	ruleUnsettledIsInherited  rule = "acquire: an unsettled lock of our own keeps settled and prev"
	ruleOpenFences            rule = "open: if fence: f[u] = max(f[u], epoch)"
	ruleReleaseComparesConn   rule = "release: if s is (me, conn)"
	ruleUnsettledIsFenced     rule = "release: if not settled: f[u] = max(f[u], s.epoch)"
	ruleReassertYieldsToLock  rule = "reassert: if s.epoch > epoch (tombstone too): LOST"
	ruleReassertNamesTheLower rule = "reassert: settled = no live cur, prev = cur"
	ruleEdgesAreNumbered      rule = "edges: a late command does not undo a newer one"
	ruleNewMasterNewInc       rule = "a changed master_replid means a new inc"
	ruleOwnerHasBoot          rule = "owner = pod@boot (boot: random per start)"
)

// Rules of logins, kills, selections.
const (
	ruleUnsettledPrevIsFenced rule = "fence = prev and not (answered and prev.settled)"
	ruleSilenceIsFenced       rule = "fence = prev and not (answered ...)"
	ruleAnswerAfterTheEnd     rule = "answer: no socket of this key below that epoch is, or can come, into my index"
	ruleKillNamesEpoch        rule = "kill: epoch < new -> close"
	ruleReadyAfterOpen        rule = "ready after open"
	ruleSelectionWaits        rule = "select_chat: the old chat until the route's reply"
)

// Rules of delivery.
const (
	ruleLookupAfterPull       rule = "L = lookup after the pull, never cached"
	ruleIncBelongsToLookup    rule = "lookup: ONE script, so that inc belongs to what it returns"
	ruleFencesAreLookedUp     rule = "lookup: f per agent"
	ruleMissedRoundBeginsAnew rule = "sent[q] is dropped when q misses a round"
	ruleHoleIsRepaired        rule = "take: from > W: repair"
	ruleTakersCheckInc        rule = "take: inc != asserted[N]: drop, or assert, repair"
	ruleWatermarkNeverFalls   rule = "P2: W never falls within a stream id"
	ruleAssertThenRepair      rule = "assert, then repair, then open"
	ruleRepairBeginsAgain     rule = "repair begins again (H too) after an assert"
	ruleFencesReadAfterEvents rule = "repair: lookup(fences) AFTER reading"
	ruleCompleteByTheLeader   rule = "repair: until its leader-read last was seen"
	ruleSilenceIsServed       rule = "no progress 2 s: repair each 300 ms"
)

// Rules of resume.
const (
	ruleResumeToStreamEnd       rule = "resume: H = leader's last seq"
	ruleResumeReadsEndAfterOpen rule = "resume: H after open and state REPLAY"
	ruleReplayGoesToTheMark     rule = "resume: mark > H: n = H, again"
)
