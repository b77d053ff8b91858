package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/daisi/daisi-ws/cmd/nearest"
)

const prefix = "DWS_"

// injected are the names that Kubernetes gives every pod beside a Service that
// is called dws or dws-something.
var injected = regexp.MustCompile(`^DWS_[A-Z0-9_]*(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_(TCP|UDP)\w*)?)$`)

// environment is what of the process's environment is ours.
type environment struct {
	vars    map[string]string // by name of config; files are read
	files   map[string]string // name -> file it came from
	ignored []string          // injected by Kubernetes
}

// readEnvironment sorts environ ("NAME=value") into settings. Names that are
// nobody's are errors, for a misspelt setting is one that silently does
// nothing. An empty value counts as not set.
func readEnvironment(environ []string) (environment, error) {
	e := environment{vars: map[string]string{}, files: map[string]string{}}
	known := map[string]setting{}
	for _, s := range settings() {
		known[s.name] = s
		if s.mask != "" {
			known[s.name+"_FILE"] = s
		}
	}
	var errs []error
	for _, kv := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(kv, "=")
		s, ok := known[name]
		switch {
		case !strings.HasPrefix(name, prefix):
		case !ok && injected.MatchString(name):
			e.ignored = append(e.ignored, name)
		case !ok:
			errs = append(errs, fmt.Errorf("%s: no such setting; did you mean %s? `daisi-ws config` lists all", name, nearest.Names(name, slices.Collect(maps.Keys(known)), 1)[0]))
		case value == "":
		case name != s.name:
			e.files[s.name] = value
		default:
			e.vars[name] = value
		}
	}
	for name, file := range e.files {
		text, err := os.ReadFile(file)
		switch {
		case e.vars[name] != "":
			errs = append(errs, fmt.Errorf("%s and %s_FILE are both set: keep one", name, name))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s_FILE: %w", name, err))
		case strings.TrimRight(string(text), "\r\n") == "":
			errs = append(errs, fmt.Errorf("%s_FILE: %s is empty", name, file))
		default:
			e.vars[name] = strings.TrimRight(string(text), "\r\n")
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return e, errors.Join(errs...)
}
