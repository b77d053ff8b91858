package server

import (
	"crypto/tls"
	"sync/atomic"
)

// configs are the tls.Configs that connections keep, one a handshake slot, all
// alike but for the slot that VerifyConnection gives back.
type configs struct {
	slots []configSlot
	turn  atomic.Uint32
}

type configSlot struct {
	config  *tls.Config
	release atomic.Pointer[func()]
}

func newConfigs(n int, base *tls.Config) *configs {
	c := &configs{slots: make([]configSlot, n)}
	for i := range c.slots {
		s := &c.slots[i]
		s.config = base.Clone()
		s.config.VerifyConnection = func(tls.ConnectionState) error {
			s.free()
			return nil
		}
	}
	return c
}

// next gives the config that releases when its handshake is verified. A slot
// whose handshake is unfinished may be met again after its hold has run out:
// then the former holder is released, which is due anyway, and the newcomer at
// the latest when its own hold is over.
func (c *configs) next(release func()) *tls.Config {
	s := &c.slots[int(c.turn.Add(1))%len(c.slots)]
	if old := s.release.Swap(&release); old != nil {
		(*old)()
	}
	return s.config
}

func (s *configSlot) free() {
	if release := s.release.Swap(nil); release != nil {
		(*release)()
	}
}

func (c *configs) setTicketKeys(keys [][32]byte) {
	for i := range c.slots {
		c.slots[i].config.SetSessionTicketKeys(keys)
	}
}
