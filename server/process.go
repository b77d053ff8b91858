package server

import (
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/redisx"
)

// SetProcessDefaults sets what libraries keep in globals: nbio's logger and
// allocator, go-redis's logger. Only a main may call it, once, before New.
func SetProcessDefaults(log zerolog.Logger) {
	loop.SetProcessDefaults()
	redisx.SetProcessDefaults(log)
}
