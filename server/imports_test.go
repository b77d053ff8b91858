package server

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	modulePath  = "github.com/daisi/daisi-ws"
	maxFile     = 400 // lines
	maxFunction = 80  // lines
)

// arrows are who may import whom: README's "Architecture". Complete: a package
// that is not listed may not exist.
var arrows = map[string][]string{
	"loop":            nil,
	"session":         nil,
	"redisx":          {"session"},
	"natsx":           {"session"},
	"rpc":             {"session", "rpc/forwardpb"},
	"rpc/forwardpb":   nil,
	"redisx/embedded": nil,
	"natsx/embedded":  nil,
	"server":          {"loop", "session", "redisx", "natsx", "rpc"},
	"cmd/nearest":     nil,
	"bench":           {"session", "loop", "cmd/nearest"},
	"cmd/daisi-ws":    {"server", "redisx/embedded", "natsx/embedded", "session", "cmd/nearest"},
	"bench/local":     {"bench"},
	"bench/view":      {"bench"},
	"cmd/daisi-bench": {"bench", "bench/local", "bench/view"},

	"loop/looptest":      {"loop"},
	"redisx/redistest":   {"redisx/embedded"},
	"natsx/natstest":     {"natsx/embedded"},
	"server/clustertest": {"server", "loop", "session", "redisx/redistest", "natsx/natstest"},
}

// testOnly packages are for _test.go files, and for each other.
var testOnly = []string{"loop/looptest", "redisx/redistest", "natsx/natstest", "server/clustertest"}

// testArrows are what the tests of a package may import besides: the cluster's
// proofs are judged by the one harness there is, and PushEvent is called as the
// old service calls it.
var testArrows = map[string][]string{"server": {"bench", "rpc/forwardpb"}}

// topLevel is all that may lie at the top, beside dot-folders and what
// .gitignore names.
var topLevel = strings.Fields("server loop session redisx natsx rpc bench cmd go.mod go.sum Makefile README.md LICENSE bin")

// source is one Go file of the tree.
type source struct {
	path, pkg string // pkg: folder
	test      bool
	generated bool
	lines     int
	ast       *ast.File
	fset      *token.FileSet
}

func TestPolicy(t *testing.T) {
	tree := os.DirFS("..")
	files := readTree(t, tree)
	if len(files) < 40 {
		t.Fatalf("only %d Go files found: is the tree elsewhere?", len(files))
	}
	for _, broken := range slices.Concat(violations(files), strangers(tree)) {
		t.Error(broken)
	}
	// An arrow that nobody uses is a door left open.
	used := map[string]bool{}
	for _, f := range files {
		for _, to := range ours(f) {
			used[f.pkg+" -> "+to] = true
		}
	}
	for from, to := range arrows {
		if strings.HasSuffix(from, "test") {
			continue
		}
		for _, to := range to {
			if !used[from+" -> "+to] {
				t.Errorf("arrow %s -> %s is not used: take it out", from, to)
			}
		}
	}
}

// Each policy finds what was planted against it, and nothing else.
func TestPolicyFindsPlanted(t *testing.T) {
	const doc = "// Package p is planted.\npackage p\n"
	f := func(want, name, text string) {
		t.Helper()
		tree := fstest.MapFS{name: {Data: []byte(text)}}
		if dir := path.Dir(name); path.Ext(name) == ".go" && dir != "." {
			tree[path.Join(dir, "doc.go")] = &fstest.MapFile{Data: []byte(doc)}
			if want == "no package comment" {
				delete(tree, path.Join(dir, "doc.go"))
			}
		}
		got := slices.Concat(violations(readTree(t, tree)), strangers(tree))
		if len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: got %q, want one with %q", name, got, want)
		}
	}
	imports := func(p string) string { return fmt.Sprintf("package p\n\nimport _ %q\n", modulePath+"/"+p) }
	f("loop may not import session", "loop/x.go", imports("session"))
	f("redisx may not import natsx", "redisx/x.go", imports("natsx"))
	f("redisx may not import redisx/redistest", "redisx/x.go", imports("redisx/redistest"))
	f("session may not import server", "session/x_test.go", imports("server"))
	f("bench may not import server", "bench/x.go", imports("server"))
	f("no such package in the architecture", "session/sub/x.go", "package p\n")
	f("no package comment", "session/x.go", "package p\n")
	f("lines, more than 400", "session/x.go", "package p\n"+strings.Repeat("\n", 400))
	f("func long: 81 lines, more than 80", "session/x.go", "package p\n\nfunc long() {"+strings.Repeat("\n", 80)+"}\n")
	f("os.Getenv outside cmd", "session/x.go", "package p\n\nimport \"os\"\n\nvar x = os.Getenv(\"X\")\n")
	f("os.LookupEnv outside cmd", "server/x.go", "package p\n\nimport env \"os\"\n\nfunc f() { env.LookupEnv(\"X\") }\n")
	f("flag outside cmd", "server/x.go", "package p\n\nimport _ \"flag\"\n")
	f("func init", "session/x.go", "package p\n\nfunc init() {}\n")
	f("skips itself", "session/x_test.go", "package p\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) { t.Skip() }\n")
	f("skips itself", "session/x_test.go", "package p\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) { t.Skipf(\"x\") }\n")
	f("skips itself", "session/x_test.go", "package p\n\nimport (\n\t\"testing\"\n\n\t\"pgregory.net/rapid\"\n)\n\nfunc g(t *rapid.T) { t.Skip() }\n\nfunc TestX(t *testing.T) { t.Skip() }\n")
	f("left open", "session/x.go", "package p\n\n// TO"+"DO: later\n")
	f("docs does not belong at the top", "docs/x.md", "")
	f("main.go does not belong at the top", "main.go", "// Package p is planted.\npackage p\n")

	good := fstest.MapFS{
		"session/doc.go":        {Data: []byte(doc)},
		"server/doc.go":         {Data: []byte(doc)},
		"server/x.go":           {Data: []byte(imports("session"))},
		"session/x_test.go":     {Data: []byte("package p\n\nimport \"pgregory.net/rapid\"\n\nfunc g(t *rapid.T) { t.Skip() }\n")},
		"server/x_test.go":      {Data: []byte(imports("natsx/natstest"))},
		"cmd/daisi-ws/x.go":     {Data: []byte("// Command x\npackage main\n\nimport \"os\"\n\nvar x = os.Getenv(\"X\")\n")},
		"rpc/forwardpb/x.go":    {Data: []byte("// Code generated by x. DO NOT EDIT.\n\npackage p\n" + strings.Repeat("\n", 1000) + "func init() {}\n")},
		".ci/x.go":              {Data: []byte("package broken {")},
		"session/testdata/x.go": {Data: []byte("package broken {")},
	}
	if got := slices.Concat(violations(readTree(t, good)), strangers(good)); len(got) > 0 {
		t.Errorf("a good tree breaks %q", got)
	}
}

// readTree parses what `./...` means.
func readTree(t *testing.T, tree fs.FS) []source {
	t.Helper()
	var files []source
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() && n != "." && (n[0] == '.' || n[0] == '_' || n == "testdata" || n == "node_modules") {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(p) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		f := source{path: p, pkg: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), lines: bytes.Count(text, []byte("\n")), fset: token.NewFileSet()}
		if f.ast, err = parser.ParseFile(f.fset, p, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
			return err
		}
		f.generated = ast.IsGenerated(f.ast)
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// violations lists what files do that no file may.
func violations(files []source) []string {
	var out []string
	documented := map[string]bool{}
	for _, f := range files {
		documented[f.pkg] = documented[f.pkg] || !f.test && (f.ast.Doc != nil || f.generated)
		out = append(out, brokenArrows(f)...)
		if !f.generated {
			out = append(out, brokenShape(f)...)
			out = append(out, brokenHabits(f)...)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(documented)) {
		if !documented[pkg] {
			out = append(out, pkg+": no package comment")
		}
		if _, ok := arrows[pkg]; !ok && pkg != "." {
			out = append(out, pkg+": no such package in the architecture; README's arrows and this test come first")
		}
	}
	return out
}

// ours are the packages of this module that f imports.
func ours(f source) []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value) // the parser has checked it
		if rest, ok := strings.CutPrefix(p, modulePath+"/"); ok {
			out = append(out, rest)
		}
	}
	return out
}

func brokenArrows(f source) []string {
	var out []string
	for _, to := range ours(f) {
		allowed := slices.Contains(arrows[f.pkg], to)
		if f.test {
			allowed = allowed || to == f.pkg || slices.Contains(testArrows[f.pkg], to) || slices.Contains(testOnly, to) || strings.HasSuffix(to, "/embedded")
		}
		if !allowed {
			out = append(out, fmt.Sprintf("%s: %s may not import %s", f.path, f.pkg, to))
		}
	}
	return out
}

func brokenShape(f source) []string {
	var out []string
	if f.lines > maxFile {
		out = append(out, fmt.Sprintf("%s: %d lines, more than %d", f.path, f.lines, maxFile))
	}
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line + 1; n > maxFunction {
			out = append(out, fmt.Sprintf("%s: func %s: %d lines, more than %d", f.path, fn.Name.Name, n, maxFunction))
		}
		if fn.Name.Name == "init" && fn.Recv == nil {
			out = append(out, f.path+": func init: two gateways must live in one process; nothing happens before main")
		}
	}
	return out
}

// brokenHabits finds calls by name: the environment and flags belong to cmd,
// and a test that skips itself proves nothing.
func brokenHabits(f source) []string {
	var out []string
	system := "" // what package os is called here
	for _, i := range f.ast.Imports {
		switch i.Path.Value {
		case `"os"`:
			system = "os"
			if i.Name != nil {
				system = i.Name.Name
			}
		case `"flag"`:
			if !strings.HasPrefix(f.pkg, "cmd/") && !f.test {
				out = append(out, f.path+": flag outside cmd")
			}
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := s.X.(*ast.Ident)
		switch name := s.Sel.Name; {
		case !ok:
		case x.Name == system && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, name):
			if !f.test && !strings.HasPrefix(f.pkg, "cmd/") && !slices.Contains(testOnly, f.pkg) {
				out = append(out, f.path+": os."+name+" outside cmd")
			}
		case f.test && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, name) && slices.Contains([]string{"t", "b", "tb", "f"}, x.Name) && !drawn(f, n):
			out = append(out, f.path+": a test skips itself")
		}
		return true
	})
	for _, group := range f.ast.Comments {
		if strings.Contains(group.Text(), "TO"+"DO") || strings.Contains(group.Text(), "FIX"+"ME") {
			out = append(out, f.path+": work left open in a comment")
		}
	}
	return out
}

// drawn says whether n lies in a function that rapid calls: there a skip is a
// draw thrown away, not a test.
func drawn(f source, n ast.Node) bool {
	found := false
	ast.Inspect(f.ast, func(outer ast.Node) bool {
		var kind *ast.FuncType
		switch fn := outer.(type) {
		case *ast.FuncDecl:
			kind = fn.Type
		case *ast.FuncLit:
			kind = fn.Type
		}
		if kind == nil || n.Pos() < outer.Pos() || n.End() > outer.End() {
			return true
		}
		for _, p := range kind.Params.List {
			if star, ok := p.Type.(*ast.StarExpr); ok {
				s, ok := star.X.(*ast.SelectorExpr)
				found = found || ok && fmt.Sprint(s.X) == "rapid"
			}
		}
		return true
	})
	return found
}

// strangers are entries of the top that have no place there.
func strangers(tree fs.FS) []string {
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, e := range entries {
		if e.Name()[0] != '.' && !slices.Contains(topLevel, e.Name()) {
			out = append(out, e.Name()+" does not belong at the top")
		}
	}
	return out
}
