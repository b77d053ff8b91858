package session

import "fmt"

// Check looks for contradictions inside the index; for tests and /debug/check.
func (x *Index[C]) Check() error {
	for n := range x.shards {
		if err := x.shards[n].check(n); err != nil {
			return fmt.Errorf("partition %d: %w", n, err)
		}
	}
	return nil
}

func (sh *shard[C]) check(n int) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	live, chosen, refs := 0, 0, 0
	for k, a := range sh.agents {
		refs += a.refs
		if a.refs < len(a.members) || a.refs == 0 {
			return fmt.Errorf("agent %v has %d members but %d refs", k, len(a.members), a.refs)
		}
		if a.byUser != nil && len(a.byUser) != len(a.members) {
			return fmt.Errorf("agent %v has %d members but %d users", k, len(a.members), len(a.byUser))
		}
		for i, s := range a.members {
			if s.agent != a || int(s.slot) != i || int(s.part) != n || a.find(s.user) != s {
				return fmt.Errorf("session %v is not where it should be", s.Key())
			}
			if s.state != Joining && s.state != Live && s.state != Replay {
				return fmt.Errorf("session %v is in the index but %v", s.Key(), s.state)
			}
			if s.state != Joining {
				live++
			}
			if s.chat == "" {
				continue
			}
			chosen++
			list := sh.chats[chatKey[C]{a, s.chat}]
			if int(s.chatSlot) >= len(list) || list[s.chatSlot] != s {
				return fmt.Errorf("session %v is not in its chat's list", s.Key())
			}
		}
	}
	if !sh.checkPending() {
		return fmt.Errorf("%d selections on their way don't fit the %d chats they want", len(sh.pending), len(sh.joining))
	}
	for _, list := range sh.chats {
		chosen -= len(list)
	}
	if chosen != 0 || live != sh.live {
		return fmt.Errorf("%d too many chosen chats, %d live counted as %d", chosen, live, sh.live)
	}
	return nil
}
