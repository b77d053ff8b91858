// Command testsum counts tests: it reads `go test -json` from standard input,
// or the TAP of node's test runner from a file, shows what failed, and keeps
// the counts in a file that -total adds up.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

type counts struct {
	passed, failed, skipped int
	seconds                 float64
}

// event is a line of `go test -json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

func main() {
	name := flag.String("name", "tests", "name of this pass, one word")
	file := flag.String("counts", ".ci/out/counts", "file the counts are added to")
	tap := flag.String("tap", "", "read this TAP file instead of go test -json")
	verbose := flag.Bool("v", false, "print what tests that passed said, too: figures of proofs")
	total := flag.Bool("total", false, "add up the counts file; with CI=true a skip is a failure")
	flag.Parse()
	var err error
	switch {
	case *total:
		err = sum(*file)
	case *tap != "":
		err = readTAP(*name, *file, *tap)
	default:
		err = readGo(*name, *file, *verbose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
}

// readGo shows a line a package, and everything a failed test said.
func readGo(name, file string, verbose bool) error {
	began := time.Now()
	var all counts
	var digest string               // of what failed, once more at the end
	said := map[string]string{}     // package and test -> output so far
	packages := map[string]counts{} // tests of a package
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		key, c := e.Package+" "+e.Test, packages[e.Package]
		switch e.Action {
		case "output":
			said[key] += e.Output
		case "build-output":
			fmt.Print(e.Output)
		case "pass", "skip", "fail":
			if e.Test != "" {
				c.count(e.Action)
				packages[e.Package] = c
			} else {
				if e.Action == "fail" { // tests that did not come to their end, for one panicked or hung
					for _, k := range slices.Sorted(maps.Keys(said)) {
						if name, ok := strings.CutPrefix(k, e.Package+" "); ok && name != "" {
							fmt.Print(said[k])
							digest += summary(event{Package: e.Package, Test: name}, said[k])
						}
					}
				}
				finish(e, &c, said[key])
				all.add(c)
			}
			if e.Test != "" && (e.Action != "pass" || verbose) {
				fmt.Print(said[key])
			}
			if e.Action == "fail" {
				digest += summary(e, said[key])
			}
			delete(said, key)
		}
	}
	all.seconds = time.Since(began).Seconds()
	if err := appendTo(file+".failed", digest); err != nil {
		return err
	}
	return all.keep(name, file)
}

// ownLine is a line by the test itself, not by a server that it started.
var ownLine = regexp.MustCompile(`^\s+\w+_test\.go:\d+: |^panic: |^WARNING: DATA RACE|^fatal error: `)

// summary is what a test that failed said itself: servers say a lot more.
func summary(e event, output string) string {
	const most = 40
	text, lines := fmt.Sprintf("failed: %s %s (%.1f s)\n", e.Package, e.Test, e.Elapsed), 0
	for line := range strings.Lines(output) {
		if lines < most && ownLine.MatchString(line) {
			text += line[:min(len(line), 400)]
			lines++
		}
	}
	return strings.TrimRight(text, "\n") + "\n"
}

// finish closes a package; one that failed without a failed test (it did not
// build, or leaked) counts as one failure.
func finish(e event, c *counts, output string) {
	if e.Action == "fail" && c.failed == 0 {
		c.failed++
		fmt.Print(output)
	}
	if *c != (counts{}) {
		fmt.Printf("%-5s %-50s %4d passed %d failed %d skipped %7.1fs\n", e.Action, e.Package, c.passed, c.failed, c.skipped, e.Elapsed)
	}
}

func (c *counts) count(action string) {
	switch action {
	case "pass":
		c.passed++
	case "fail":
		c.failed++
	case "skip":
		c.skipped++
	}
}

func (c *counts) add(o counts) {
	c.passed, c.failed, c.skipped, c.seconds = c.passed+o.passed, c.failed+o.failed, c.skipped+o.skipped, c.seconds+o.seconds
}

// readTAP takes the closing lines "# pass 3" of node's runner.
func readTAP(name, file, tap string) error {
	text, err := os.ReadFile(tap)
	if err != nil {
		return err
	}
	var c counts
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "#" {
			continue
		}
		n, _ := strconv.ParseFloat(f[2], 64) // other comments have no number
		switch f[1] {
		case "pass":
			c.passed = int(n)
		case "fail", "cancelled":
			c.failed += int(n)
		case "skipped", "todo":
			c.skipped += int(n)
		case "duration_ms":
			c.seconds = n / 1000
		}
	}
	if c.passed+c.failed == 0 {
		c.failed = 1
		fmt.Println(tap, "tells of no test")
	}
	return c.keep(name, file)
}

// keep prints and adds one line to the counts file.
func (c counts) keep(name, file string) error {
	line := fmt.Sprintf("%-12s %5d %3d %3d %7.1f\n", name, c.passed, c.failed, c.skipped, c.seconds)
	if err := appendTo(file, line); err != nil {
		return err
	}
	if c.failed > 0 {
		return fmt.Errorf("%s: %d failed", name, c.failed)
	}
	return nil
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

// sum prints what failed, all passes and the closing line.
func sum(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if failed, err := os.ReadFile(file + ".failed"); err == nil {
		fmt.Print(string(failed))
	}
	fmt.Println("pass         passed failed skipped seconds")
	fmt.Print(string(text))
	var all counts
	for line := range strings.Lines(string(text)) {
		var name string
		var c counts
		if _, err := fmt.Sscan(line, &name, &c.passed, &c.failed, &c.skipped, &c.seconds); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		all.add(c)
	}
	fmt.Printf("in %.0f s\n%d passed, %d failed, %d skipped\n", all.seconds, all.passed, all.failed, all.skipped)
	switch {
	case all.failed > 0:
		return fmt.Errorf("%d tests failed", all.failed)
	case all.skipped > 0 && os.Getenv("CI") == "true":
		return fmt.Errorf("%d tests skipped, and in CI a skip is a failure", all.skipped)
	}
	return nil
}
