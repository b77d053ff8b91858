package redisx

import (
	"context"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// SetProcessDefaults sends what the Redis library logs, mostly failed dials, to
// log at debug level. The library has one logger a process, so only a command's
// main calls it, before anything else here.
func SetProcessDefaults(log zerolog.Logger) { redis.SetLogger(libraryLog{log}) }

type libraryLog struct{ log zerolog.Logger }

// Printf is the library's logger.
func (l libraryLog) Printf(_ context.Context, format string, v ...any) {
	l.log.Debug().Msgf(format, v...)
}
