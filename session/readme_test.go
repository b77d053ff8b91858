package session

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write README's table of reasons")

// README's table of reasons is made from reason.go:
// go test ./session -run TestREADMEReasons -update
func TestREADMEReasons(t *testing.T) {
	const path, begin, end = "../README.md", "<!-- reasons: made from session/reason.go -->\n", "<!-- reasons end -->"
	var b strings.Builder
	b.WriteString("| reason (metric label) | error code | HTTP | close | close text | reconnect? |\n|---|---|---|---|---|---|\n")
	for r := range Reason(Reasons) {
		status, code := "–", "–"
		if r.Status() != 0 {
			status = fmt.Sprint(r.Status())
		}
		if r.Code() != "" {
			code = "`" + r.Code() + "`"
		}
		fmt.Fprintf(&b, "| `%s`: %s | %s | %s | %d | %s | %s |\n", r.Label(), r.Message(), code, status, r.CloseCode(), r.CloseText(), r.Reconnect())
	}
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(readme), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md has no place for the table of reasons")
	}
	if old == b.String() {
		return
	}
	if !*update {
		t.Fatal("README's table of reasons is not that of reason.go: run go test ./session -run TestREADMEReasons -update")
	}
	if err := os.WriteFile(path, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
