package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/daisi/daisi-ws/server"
)

// showConfig prints what a start with this environment would use, or the
// README's table.
func showConfig(c console, args []string) error {
	f := c.flags("config", "config [-markdown]")
	markdown := f.Bool("markdown", false, "print README's table of all settings and their defaults")
	if err := parseFlags(f, args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%w: config takes no arguments", errUsage)
	}
	if *markdown {
		_, err := io.WriteString(c.out, table())
		return err
	}
	p, err := plan(c.environ)
	if err != nil {
		return err
	}
	return p.print(c.out)
}

// print writes NAME=value lines with where each value comes from.
func (p planned) print(w io.Writer) error {
	effective, err := effectiveOptions(p.options)
	if err != nil {
		return err
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range settings() {
		value := fmt.Sprint(p.config.LogLevel)
		if s.option != "" {
			value = show(effective, s)
		}
		fmt.Fprintf(tab, "%s=%s\t# %s\n", s.name, value, p.source(s))
	}
	for _, name := range p.environment.ignored {
		fmt.Fprintf(tab, "%s\t# ignored: looks like one that Kubernetes injects\n", name)
	}
	return tab.Flush()
}

// effectiveOptions asks server for what it would use. Embedded servers have no
// URL before they run, so a word stands there.
func effectiveOptions(o server.Options) (map[string]any, error) {
	if o.Redis.URL == "" {
		o.Redis.URL = "redis://embedded"
	}
	if o.NATS.URL == "" {
		o.NATS.URL = "nats://embedded"
	}
	m, err := o.Masked()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, inWords(err))
	}
	return m, nil
}

// show finds the value of s in the masked options, in the form it is set in.
func show(effective map[string]any, s setting) string {
	var v any = effective
	for name := range strings.SplitSeq(strings.TrimPrefix(s.option, "!"), ".") {
		v = v.(map[string]any)[name]
	}
	switch v := v.(type) {
	case bool:
		return fmt.Sprint(v != strings.HasPrefix(s.option, "!"))
	case []string:
		return strings.Join(v, ",")
	case int:
		if strings.HasSuffix(s.standard, "iB") {
			return size(v).String()
		}
		return fmt.Sprint(v)
	}
	return fmt.Sprint(v)
}

// source says where the value of s comes from.
func (p planned) source(s setting) string {
	switch {
	case p.environment.files[s.name] != "":
		return "file " + p.environment.files[s.name]
	case p.environment.vars[s.name] != "":
		return "environment"
	case p.made[s.name] != "":
		return p.made[s.name]
	}
	return "default"
}

// Marks around the table in README.md.
const (
	tableBegin = "<!-- settings: made by go run ./cmd/daisi-ws config -markdown -->"
	tableEnd   = "<!-- settings end -->"
)

// table is README's list of settings.
func table() string {
	var b strings.Builder
	b.WriteString(tableBegin + "\n\n| name | default | what |\n|---|---|---|\n")
	for _, s := range settings() {
		name, standard := "`"+s.name+"`", ""
		if s.mask != "" {
			name += ", `…_FILE`"
		}
		if s.standard != "" {
			standard = "`" + s.standard + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, standard, strings.ReplaceAll(s.doc, "|", `\|`))
	}
	b.WriteString("\n" + tableEnd + "\n")
	return b.String()
}
