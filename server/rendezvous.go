package server

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"github.com/daisi/daisi-ws/session"
)

// ownerOf is the pod that should read partition n: the one with the highest
// hash of (owner, n) of those on the live list that do not leave (rendezvous hashing, Thaler and
// Ravishankar 1998), so that a pod that comes or goes moves only its own share.
// Empty when there is none.
func ownerOf(n int, live []session.Pod) session.Owner {
	var best session.Owner
	var top uint64
	for _, p := range live {
		if p.Leaving {
			continue
		}
		if h := score(p.Owner, n); best == "" || h > top || h == top && p.Owner > best {
			best, top = p.Owner, h
		}
	}
	return best
}

func score(o session.Owner, n int) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(string(o))
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	_, _ = d.Write(b[:])
	return d.Sum64()
}
