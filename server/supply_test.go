package server

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// between is a part of README.
func between(t *testing.T, begin, end string) string {
	t.Helper()
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), begin)
	part, _, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no part from %q to %q", begin, end)
	}
	return part
}

// supply compares what go.mod requires, what README gives a reason for, and what
// is imported.
func supply(gomod, table string, imported func(module string) bool) (wrong []string) {
	var required, listed []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(gomod, -1) {
		required = append(required, m[1])
		if !imported(m[1]) {
			wrong = append(wrong, m[1]+" is required and not used")
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\S+)` \\| \\S.* \\|$").FindAllStringSubmatch(table, -1) {
		listed = append(listed, m[1])
		if !slices.Contains(required, m[1]) {
			wrong = append(wrong, m[1]+" has a reason in README, but is not required")
		}
	}
	for _, m := range required {
		if !slices.Contains(listed, m) {
			wrong = append(wrong, m+" is required without a reason in README")
		}
	}
	return wrong
}

// Every module that is linked or tested with has its reason in README, and is
// used.
func TestREADMEDependencies(t *testing.T) {
	gomod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, f := range readTree(t, os.DirFS("..")) {
		for _, i := range f.ast.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			for part := path; part != ""; part, _, _ = cutLast(part, "/") {
				used[part] = true
			}
		}
	}
	table := between(t, "<!-- dependencies -->", "<!-- dependencies end -->")
	for _, w := range supply(string(gomod), table, func(m string) bool { return used[m] }) {
		t.Error(w)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

func TestSupplyFindsPlanted(t *testing.T) {
	const gomod = "require (\n\ta.example/x v1.0.0\n\tb.example/y v0.1.0\n)\n\nrequire (\n\tc.example/z v1.0.0 // indirect\n)\n"
	const good = "| `a.example/x` | why |\n| `b.example/y` | why |\n"
	all := func(string) bool { return true }
	f := func(table, want string, used func(string) bool) {
		t.Helper()
		got := strings.Join(supply(gomod, table, used), "; ")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(good, "", all)
	f("| `a.example/x` | why |\n", "b.example/y is required without", all)
	f("| `a.example/x` | why |\n| `b.example/y` |  |\n", "b.example/y is required without", all)
	f(good+"| `d.example/q` | why |\n", "d.example/q has a reason", all)
	f(good, "a.example/x is required and not used", func(m string) bool { return m != "a.example/x" })
}

// Every test that the chapter "Security" names exists.
func TestREADMESecurity(t *testing.T) {
	table := between(t, "<!-- security:", "<!-- security end -->")
	have := map[string]bool{}
	for _, f := range readTree(t, os.DirFS("..")) {
		for _, name := range testsOf(f) {
			have[name] = true
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(table, -1)
	if len(named) < 30 {
		t.Errorf("only %d tests named", len(named))
	}
	for _, m := range named {
		if !have[m[1]] {
			t.Errorf("%s does not exist", m[1])
		}
	}
	if have["TestThatDoesNotExist"] {
		t.Error("everything exists")
	}
}

// testsOf are the tests and fuzz targets of a file.
func testsOf(f source) (names []string) {
	for _, d := range f.ast.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && (strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
			names = append(names, fn.Name.Name)
		}
	}
	return names
}
