package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/daisi/daisi-ws/server"
)

// errConfig marks errors whose cure is another environment.
var errConfig = errors.New("configuration")

// planned is what a start would do, before anything runs.
type planned struct {
	environment environment
	config      config
	options     server.Options
	made        map[string]string // setting -> how it was made up
}

// plan reads the environment and makes up what development needs. Its error
// names all that is wrong.
func plan(environ []string) (planned, error) {
	e, err := readEnvironment(environ)
	c, wrong := parse(e.vars)
	if err = errors.Join(err, wrong); err != nil {
		return planned{}, fmt.Errorf("%w:\n%w", errConfig, err)
	}
	p := planned{environment: e, config: c, options: c.options(), made: map[string]string{}}
	p.options.Version = version
	if c.RequireExternal {
		if missing := p.missing(); len(missing) > 0 {
			return planned{}, fmt.Errorf("%w: DWS_REQUIRE_EXTERNAL=true, but %s not set: set them, or DWS_REQUIRE_EXTERNAL=false for a development pod that makes up its own",
				errConfig, strings.Join(missing, ", "))
		}
	}
	p.makeUp()
	effective, err := effectiveOptions(p.options)
	if err != nil {
		return planned{}, err
	}
	p.options.PodID = fmt.Sprint(effective["PodID"]) // every log line has it
	return p, nil
}

// required are the settings without which a pod makes something up.
func (p planned) missing() []string {
	var out []string
	for _, s := range settings() {
		switch s.name {
		case "DWS_REDIS_URL", "DWS_NATS_URL", "DWS_AUTH_API_KEY", "DWS_AUTH_TOKEN_KEYS":
			if p.environment.vars[s.name] == "" {
				out = append(out, s.name)
			}
		}
	}
	return out
}

// makeUp turns embedded servers on and makes keys. A pod on somebody's real
// Redis gets only the keys it can't do without: an admin API that nobody asked
// for stays off.
func (p *planned) makeUp() {
	o := &p.options
	o.Embedded.On = o.Redis.URL == "" || o.NATS.URL == ""
	p.note("DWS_REDIS_URL", o.Redis.URL == "", "embedded, lost at exit")
	p.note("DWS_NATS_URL", o.NATS.URL == "", "embedded, lost at exit")
	p.key("DWS_AUTH_API_KEY", &o.Auth.APIKey, 16)
	p.key("DWS_AUTH_TOKEN_KEYS", &o.Auth.TokenKeys, 32)
	if !o.Embedded.On {
		return
	}
	p.key("DWS_AUTH_MINT_KEY", &o.Auth.MintKey, 16)
	p.key("DWS_AUTH_ADMIN_KEY", &o.Auth.AdminKey, 16)
	p.key("DWS_AUTH_ADMIN_TOKEN_KEYS", &o.Auth.AdminTokenKeys, 32)
	if o.NATS.URL == "" {
		o.NATS.CreateStream = true
		p.note("DWS_NATS_CREATE_STREAM", p.environment.vars["DWS_NATS_CREATE_STREAM"] != "true", "on: NATS is embedded")
	}
	if o.RPC.CertFile == "" && !o.RPC.Insecure {
		o.RPC.Insecure = true
		p.note("DWS_RPC_INSECURE", true, "on: there are no other pods")
	}
}

func (p *planned) key(name string, to *string, bytes int) {
	if *to != "" {
		return
	}
	b := make([]byte, bytes)
	rand.Read(b) // never fails
	*to = hex.EncodeToString(b)
	p.note(name, true, "made at start, of this process only")
}

func (p *planned) note(name string, made bool, how string) {
	if made {
		p.made[name] = how
	}
}

// warnings are what an operator must not miss about this start.
func (p planned) warnings() []string {
	var out []string
	if p.options.Embedded.On {
		out = append(out, "DEVELOPMENT: ONE POD ONLY. Redis or NATS run inside this process, and all they hold is lost when it ends. "+
			"Set DWS_REDIS_URL and DWS_NATS_URL for anything else; DWS_REQUIRE_EXTERNAL=true refuses to start like this.")
	}
	if p.made["DWS_AUTH_TOKEN_KEYS"] != "" || p.made["DWS_AUTH_API_KEY"] != "" {
		out = append(out, "Keys were made for this process only: no other pod, and no later start, knows them. Set DWS_AUTH_API_KEY and DWS_AUTH_TOKEN_KEYS.")
	}
	return out
}
