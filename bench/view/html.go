package view

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

//go:embed report.html report.css report.js
var files embed.FS

// page is what the template shows.
type page struct {
	*bench.Report
	Style, Script template.HTML
	Mood          string // class of the verdict
	Verdict       string // in words
	Tiles         []tile
	Promises      []promise
	Kept          int
	Times         []*chart
	Delays        []latencyView
	Plain         []latencyRow // latencies without a chart
	Set           []part       // of a set of runs
	Missed        int          // thresholds
	Phases        []phase
	Settings      string
	Labels        []string // of the percentiles
	Memory, Load  string   // of the machine; of the generator
}

type tile struct{ Name, Value, Note string }

type promise struct {
	Name, Meaning string
	Count         int64
}

// part is one run of a set.
type part struct {
	Name, Mood, Result, Seconds, Copies string
	Sessions, Broken, Runs              int64 // Runs: the last of so many counts
	Missed                              []string
}

type phase struct {
	Name                                           string
	Seconds, Server, Own, Machine, RSS, Slab, TCPs string
}

// meanings are what each breach is, in words.
var meanings = map[string]string{
	"lost":         "owed to a session, never given, never told",
	"repeated":     "given twice to one session",
	"out_of_order": "given after a later one",
	"wrong_chat":   "of a chat the session had not selected",
	"wrong_tenant": "of another company or agent",
	"damaged":      "bytes differ from what was published",
	"forged":       "never published",
	"two_owners":   "two sockets of one key at once",
	"ledger":       "the pods' own count of copies sent, less what came",

	"unexplained_gap": "a gap frame although nothing was broken and nothing too slow",
}

// verdicts are what each exit code means to a reader.
var verdicts = map[bench.Exit][2]string{
	bench.ExitPass:      {"good", "Every promise was kept, every threshold too."},
	bench.ExitThreshold: {"warn", "Every promise was kept, but a threshold was missed."},
	bench.ExitBroken:    {"bad", "A promise was broken: see what the oracle found."},
	bench.ExitGenerator: {"void", "The load generator was the bottleneck: these times say nothing about the server."},
	bench.ExitError:     {"bad", "The run did not come to its end: this is what there was."},
}

// WriteHTML writes a report as one page that needs nothing else.
func WriteHTML(w io.Writer, r *bench.Report) error {
	p, err := newPage(r)
	if err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	t, err := template.New("report.html").Funcs(template.FuncMap{
		"quantity": bench.Quantity,
		"json":     func(v any) (template.JS, error) { b, err := json.Marshal(v); return template.JS(b), err }, //nolint:gosec // Marshal escapes < > &
		"bad":      func(n int64) bool { return n > 0 },
		"when":     func(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") },
	}).ParseFS(files, "report.html")
	if err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	return nil
}

// WriteHTMLFile writes it to a file.
func WriteHTMLFile(name string, r *bench.Report) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	if err := WriteHTML(f, r); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	return nil
}

func newPage(r *bench.Report) (*page, error) {
	css, err := files.ReadFile("report.css")
	if err != nil {
		return nil, err
	}
	js, err := files.ReadFile("report.js")
	if err != nil {
		return nil, err
	}
	v := verdicts[r.Exit]
	p := &page{
		Report: r, Style: template.HTML("<style>" + string(css) + "</style>"), Script: template.HTML("<script>" + string(js) + "</script>"), //nolint:gosec // our own files
		Mood: v[0], Verdict: v[1], Times: timeCharts(r), Labels: latencyPoints,
		Memory: bench.Quantity(float64(r.Machine.Memory), "B"), Load: fmt.Sprintf("%.0f %%", r.Generator.CPU*100),
	}
	if p.Delays, p.Plain, err = latencies(r); err != nil {
		return nil, err
	}
	for _, t := range r.Thresholds {
		if !t.OK {
			p.Missed++
		}
	}
	for _, o := range r.Parts {
		again, _ := r.Figure(o.Scenario + ".repeated") // 0 of most
		p.Set = append(p.Set, newPart(o, 1+int64(again)))
	}
	if p.Settings, err = settings(r.Options); err != nil {
		return nil, err
	}
	if r.Oracle != nil {
		for _, name := range slices.Sorted(maps.Keys(r.Oracle.Breaches)) {
			n := r.Oracle.Breaches[name]
			p.Promises = append(p.Promises, promise{name, meanings[name], n})
			if n == 0 {
				p.Kept++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Usage)) {
		p.Phases = append(p.Phases, newPhase(name, r.Usage[name]))
	}
	p.Tiles = tiles(r)
	return p, nil
}

func newPart(r *bench.Report, runs int64) part {
	p := part{Runs: runs, Name: r.Scenario, Mood: verdicts[r.Exit][0], Result: r.Result, Seconds: bench.Quantity(r.Seconds, "s"), Copies: "–"}
	if v := r.Oracle; v != nil {
		p.Sessions, p.Copies = v.Sessions, fmt.Sprintf("%d of %d", v.Met, v.Expected)
		for _, n := range v.Breaches {
			p.Broken += n
		}
	}
	for _, t := range r.Thresholds {
		if !t.OK {
			p.Missed = append(p.Missed, t.Text)
		}
	}
	return p
}

// settings writes options as a report in JSON does that was read again.
func settings(options any) (string, error) {
	b, err := json.Marshal(options)
	if err != nil {
		return "", err
	}
	var decoded any
	if err := json.Unmarshal(b, &decoded); err != nil {
		return "", err
	}
	b, err = json.MarshalIndent(decoded, "", "  ")
	return string(b), err
}

// tiled are the figures worth a place at the top, when a report has them.
var tiled = []tile{
	{"sessions", "", "sessions"},
	{"deliveries", "", "deliveries"},
	{"delivery.p50", "", "p50 of deliveries"},
	{"delivery.p99", "", "p99 of deliveries"},
	{"delivery_rate", "", "deliveries a second"},
	{"server_cpu_per_delivery", "", "server CPU a delivery"},
	{"logins_per_second", "", "logins a second"},
	{"login.p99", "", "p99 of logins"},
	{"server_cpu_per_login", "", "server CPU a login"},
	{"rss_per_session", "", "RSS a session"},
	{"idle_cpu_per_session", "", "idle CPU a session"},
	{"takeover.p99", "", "p99 of takeovers"},
}

func tiles(r *bench.Report) (list []tile) {
	for _, t := range tiled {
		if v, ok := r.Figure(t.Name); ok && len(list) < 8 {
			list = append(list, tile{t.Note, bench.Quantity(v, r.Unit(t.Name)), t.Name})
		}
	}
	return list
}

func newPhase(name string, u bench.Usage) phase {
	cores := func(cpu float64) string {
		if u.Seconds == 0 {
			return "–"
		}
		return fmt.Sprintf("%s (%.2f cores)", bench.Quantity(cpu, "s"), cpu/u.Seconds)
	}
	p := phase{
		Name: name, Seconds: bench.Quantity(u.Seconds, "s"), Server: "–", Own: cores(u.Own), Machine: fmt.Sprintf("%.0f %%", u.Machine*100),
		RSS: "–", Slab: signed(u.Kernel.Slab - u.KernelIn.Slab), TCPs: signed(u.Kernel.TCP - u.KernelIn.TCP),
	}
	if len(u.After) > 0 {
		p.Server, p.RSS = cores(u.Server), signed(u.RSS())
	}
	return p
}

// signed is a change in bytes.
func signed(n int64) string {
	if n < 0 {
		return "−" + bench.Quantity(float64(-n), "B")
	}
	return "+" + bench.Quantity(float64(n), "B")
}
