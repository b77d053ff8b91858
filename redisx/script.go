package redisx

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// script is one Lua script as Redis knows it. Immutable.
type script struct {
	name, body string
	sha        any // string, boxed once: it stands in every call
}

// newScript puts the named files one after the other; their local functions
// are visible to those that follow. Comments are for readers here only.
func newScript(name string, parts ...string) *script {
	var b strings.Builder
	for _, part := range append(parts, name) {
		text, err := luaFiles.ReadFile("lua/" + part + ".lua")
		if err != nil {
			panic("redisx: " + err.Error()) // the file is embedded or the program does not compile
		}
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "--") {
				b.WriteString(line)
			}
		}
	}
	sum := sha1.Sum([]byte(b.String()))
	return &script{name: name, body: b.String(), sha: hex.EncodeToString(sum[:])}
}

// scripts are all that a Client calls.
type scripts struct {
	inc, bump, acquire, open, release, reassert *script
	join, joinAll, leave, lookup, beat          *script
	revoke, revoked                             *script
}

func newScripts() scripts {
	return scripts{
		inc:      newScript("inc", "head"),
		bump:     newScript("bump"),
		acquire:  newScript("acquire", "head", "lock"),
		open:     newScript("open", "head", "lock", "fence", "edge"),
		release:  newScript("release", "lock", "fence"),
		reassert: newScript("reassert", "head", "lock"),
		join:     newScript("join", "head", "lock", "edge"),
		joinAll:  newScript("joinall", "head", "edge"),
		leave:    newScript("leave", "edge"),
		lookup:   newScript("lookup", "head"),
		beat:     newScript("beat"),
		revoke:   newScript("revoke"),
		revoked:  newScript("revoked"),
	}
}

func (s *scripts) all() []*script {
	return []*script{
		s.inc, s.bump, s.acquire, s.open, s.release, s.reassert,
		s.join, s.joinAll, s.leave, s.lookup, s.beat, s.revoke, s.revoked,
	}
}

// load makes every master know every script. Pipelines send hashes only, and a
// server forgets scripts when it restarts.
func (c *Client) load(ctx context.Context) error {
	c.counts.loads.Inc()
	err := c.eachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		_, err := node.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, s := range c.scripts.all() {
				p.ScriptLoad(ctx, s.body)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("load scripts: %w", err)
	}
	return nil
}
