package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// keysEvery is how often the files of the token keys are looked at.
const keysEvery = 2 * time.Second

// tokenKeys takes key rings; server.Gateway does.
type tokenKeys interface {
	SetTokenKeys(users, admins string) error
}

// keyNames are the settings that a running gateway takes anew.
var keyNames = [...]string{"DWS_AUTH_TOKEN_KEYS", "DWS_AUTH_ADMIN_TOKEN_KEYS"}

// watchKeys puts token keys in force when their files have changed, or when
// SIGHUP says to look, until ctx ends. What can't be read or used is said once
// and changes nothing: the old keys go on.
func watchKeys(ctx context.Context, environ []string, p planned, g tokenKeys, log zerolog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var tick <-chan time.Time
	for _, name := range keyNames {
		if p.environment.files[name] != "" && tick == nil {
			t := time.NewTicker(keysEvery)
			defer t.Stop()
			tick = t.C
		}
	}
	now, failed := [...]string{p.options.Auth.TokenKeys, p.options.Auth.AdminTokenKeys}, ""
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-hup:
			asked, failed = true, ""
		case <-tick:
		}
		next, err := readKeys(environ, p, now)
		if err == nil && next != now {
			err = g.SetTokenKeys(next[0], next[1])
		}
		switch {
		case err != nil && err.Error() != failed:
			failed = err.Error()
			log.Error().Err(inWords(err)).Msg("token keys not changed: the old ones stay in force")
		case err != nil:
		case next != now:
			now, failed = next, ""
			log.Info().Msg("token keys changed")
		case asked:
			log.Info().Msg("token keys read again: they are the same")
		}
	}
}

// readKeys reads the settings of keys again; those made at start stay.
func readKeys(environ []string, p planned, now [len(keyNames)]string) ([len(keyNames)]string, error) {
	e, err := readEnvironment(environ)
	if err != nil {
		return now, err
	}
	next := now
	for i, name := range keyNames {
		if p.environment.vars[name] != "" {
			next[i] = e.vars[name]
		}
	}
	return next, nil
}
