package loop

import (
	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/mempool"
)

// SetProcessDefaults replaces what nbio keeps in globals: its logger, which
// prints to stdout, by silence (what matters is counted here), and its default
// buffer pool by an Allocator. Call it once, in cmd or TestMain, before any
// Engine.
func SetProcessDefaults() {
	logging.SetLogger(silent{})
	mempool.DefaultMemPool = NewAllocator()
}

type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}
