package server_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// A bad client is a process of its own, at nice 10: what the others feel is then
// the server's doing, and not that they share a process with it. With two cores
// it still shares the machine.
var attackFlag = flag.String("attack", "", "an attack as JSON; the test binary then does nothing else")

const attackerNice = "10"

// attack is what the other process is to do.
type attack struct {
	Name    string        // of a bad client
	Pod     string        // host:port
	Request []byte        // its login
	For     time.Duration // how long it does its worst
}

// suffered is what became of a bad client.
type suffered struct {
	Sent    int           // frames
	After   time.Duration // until its connection took no more, or its time was over
	Outcome string
}

// TestAttacker is the attacker's process; without its flag it is nothing.
func TestAttacker(t *testing.T) {
	if *attackFlag == "" {
		return
	}
	var a attack
	if err := json.Unmarshal([]byte(*attackFlag), &a); err != nil {
		t.Fatal(err)
	}
	all := badClients()
	at := slices.IndexFunc(all, func(b badClient) bool { return b.name == a.Name })
	p := intrude(t, a.Pod, a.Request)
	fmt.Println("attacker ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	p.until = time.Now().Add(a.For)
	began := time.Now()
	all[at].bad(p)
	b, err := json.Marshal(suffered{Sent: p.sent, After: time.Since(began), Outcome: p.end(20 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("attacker came to %s\n", b)
}

// attacker is that process, seen from here.
type attacker struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
	log strings.Builder
}

// newAttacker starts one and waits until it is prepared.
func newAttacker(t *testing.T, a attack) *attacker {
	t.Helper()
	spec, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	p := &attacker{t: t, cmd: exec.Command("nice", "-n", attackerNice, os.Args[0], "-test.run", "^TestAttacker$", "-test.v", "-attack", string(spec))}
	p.cmd.Stderr = &p.log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	p.await("attacker ready")
	return p
}

// await reads up to the line that begins so, and returns its rest.
func (p *attacker) await(prefix string) string {
	p.t.Helper()
	for {
		line, err := p.out.ReadString('\n')
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return rest
		}
		p.log.WriteString(line)
		if err != nil {
			p.t.Fatalf("attacker: %v\n%s", err, p.log.String())
		}
	}
}

// begin has it do its worst.
func (p *attacker) begin() { _, _ = io.WriteString(p.in, "go\n") }

// end waits for what came of it.
func (p *attacker) end() (out suffered) {
	p.t.Helper()
	line := p.await("attacker came to ")
	_ = p.cmd.Wait()
	if err := json.Unmarshal([]byte(line), &out); err != nil {
		p.t.Fatal(err)
	}
	return out
}
