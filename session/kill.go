package session

// maxAnswers bounds the kills that one login under way owes an answer; more
// than that are left to their 250 ms.
const maxAnswers = 64

// Killed ends this pod's sessions of key below epoch, for a login on another
// pod. answer is called when that has been done: no session of key below epoch
// is, or can come, into the index here. It is called at once unless a login of
// key is under way whose epoch is unknown yet; then when that is known and
// higher, or it has ended. An answer also waits for the ended socket's close
// frame to go out, so that it is seen before the newcomer's ready. redisx calls
// it; it never blocks.
func (m *Manager[C]) Killed(key Key, epoch uint64, answer func()) {
	sh := &m.index.shards[key.Partition(m.o.Partitions)]
	var ends [2]ended[C]
	late := false
	sh.mu.Lock()
	if l := sh.logins[key]; l != nil && l.s.state != Closing {
		switch {
		case l.s.epoch == 0:
			late = true
			l.noted = max(l.noted, epoch)
			if len(l.answers) < maxAnswers {
				l.answers = append(l.answers, answer)
			}
		case l.s.epoch < epoch:
			ends[0], _ = m.end(sh, l.s, ReasonReplaced, "by a later login on another pod")
		}
	}
	if s := sh.find(key); s != nil && s.epoch < epoch {
		var ok bool
		if ends[1], ok = m.end(sh, s, ReasonReplaced, ""); ok && !late {
			ends[1].sent, late = answer, true
		}
	}
	sh.mu.Unlock()
	m.metrics.kills.Inc()
	for _, e := range ends {
		if e.s != nil {
			m.bid(e)
		}
	}
	if !late {
		answer()
	}
}
