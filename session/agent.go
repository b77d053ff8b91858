package session

import "slices"

// mapAt is how many members make a map by user worth its memory; it is given
// back below half of that.
const mapAt = 64

// agent is one active (company, agent): the ids that its sessions share, and
// its sessions in the index. The shard's lock guards all but the ids.
type agent[C Socket] struct {
	company, id string
	members     []*Session[C]
	byUser      map[string]*Session[C] // nil while there are few
	refs        int                    // members and logins under way
}

// find returns the member of this user, nil if there is none.
func (a *agent[C]) find(user string) *Session[C] {
	if a.byUser != nil {
		return a.byUser[user]
	}
	for _, s := range a.members {
		if s.user == user {
			return s
		}
	}
	return nil
}

func (a *agent[C]) add(s *Session[C]) {
	s.slot = uint32(len(a.members))
	a.members = append(a.members, s)
	switch {
	case a.byUser != nil:
		a.byUser[s.user] = s
	case len(a.members) > mapAt:
		a.byUser = make(map[string]*Session[C], len(a.members))
		for _, m := range a.members {
			a.byUser[m.user] = m
		}
	}
}

// remove takes out s itself, never another one of the same user.
func (a *agent[C]) remove(s *Session[C]) bool {
	i := int(s.slot)
	if i >= len(a.members) || a.members[i] != s {
		return false
	}
	a.members, _ = cut(a.members, i, func(m *Session[C]) { m.slot = uint32(i) })
	if a.byUser == nil {
		return true
	}
	if a.byUser[s.user] == s {
		delete(a.byUser, s.user)
	}
	if len(a.members) < mapAt/2 {
		a.byUser = nil
	}
	return true
}

// cut removes element i by moving the last one there, and gives memory back
// when three quarters are unused.
func cut[C Socket](list []*Session[C], i int, moved func(*Session[C])) ([]*Session[C], bool) {
	end := len(list) - 1
	if i != end {
		list[i] = list[end]
		moved(list[i])
	}
	list[end] = nil
	list = list[:end]
	if end == 0 {
		return nil, true
	}
	if cap(list) >= 16 && end <= cap(list)/4 {
		list = slices.Clone(list)
	}
	return list, false
}
