package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daisi/daisi-ws/bench"
)

// TestMain doubles as the reader's process of the floor scenario.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == readerCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestRunFloor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "report.json")
	f := func(want bench.Exit, thresholds string) {
		t.Helper()
		var out, log bytes.Buffer
		got, err := run(t.Context(), []string{"floor", "-sockets", "20", "-repeats", "1", "-sizes", "100", "-json", file, "-html", file + ".html", "-thresholds", thresholds}, &out, &log)
		if err != nil || got != want || !strings.Contains(out.String(), "send_100B_joined_10") {
			t.Fatalf("exit %d, want %d; error %v\n%s%s", got, want, err, &out, &log)
		}
		b, err := os.ReadFile(file)
		var r struct {
			Schema string
			Exit   int
		}
		if err != nil || json.Unmarshal(b, &r) != nil || r.Schema != bench.Schema || r.Exit != int(want) {
			t.Fatalf("report %s, %v", b, err)
		}
	}
	f(bench.ExitThreshold, "send_100B_joined_1<1ns")
	page, err := os.ReadFile(file + ".html")
	if err != nil || !bytes.Contains(page, []byte("threshold missed")) {
		t.Errorf("page of %d bytes, %v", len(page), err)
	}
	var again, log bytes.Buffer
	if code, err := run(t.Context(), []string{"html", file}, &again, &log); code != bench.ExitPass || err != nil || !bytes.Equal(again.Bytes(), page) {
		t.Errorf("html: exit %d, %v, %d bytes instead of %d", code, err, again.Len(), len(page))
	}
	f(bench.ExitError, "no_such_figure<1")
}

func TestRunHelp(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		var out, log bytes.Buffer
		code, err := run(t.Context(), args, &out, &log)
		if code != bench.ExitPass || err != nil || !strings.Contains(out.String()+log.String(), want) {
			t.Errorf("%q: exit %d, error %v, want %q in\n%s%s", args, code, err, want, &out, &log)
		}
	}
	f("takeover")
	f("exit codes", "help")
	f("-receivers", "fanout", "-h")
}

func TestRunFailure(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		var out, log bytes.Buffer
		code, err := run(t.Context(), args, &out, &log)
		if code != bench.ExitError || err == nil || !strings.Contains(err.Error()+log.String(), want) {
			t.Errorf("%q: exit %d, error %v, want %q", args, code, err, want)
		}
	}
	f("unknown scenario", "nonsense")
	f("not defined", "fanout", "-nonsense")
	f("argument", "fanout", "more")
	f("-pid", "fanout", "-pid", "x")
	f("-plant", "fanout", "-plant", "drop")
	f("unknown fault", "fanout", "-plant", "burn=1")
	f("-source", "fanout", "-source", "x")
	f("-sizes", "floor", "-sizes", "0")
	f("tls-ca", "fanout", "-tls-ca", "/nonexistent")
	f("secret", "fanout", "-token-key-file", "/nonexistent")
	f("token-key", "connect", "-quiet")
	f("threshold", "connect", "-thresholds", "x")
	f("one argument", "html")
	f("two arguments", "compare", "a.json")
	f("no file", "compare", "/nonexistent/a.json", "b.json")
	f("not defined", "doctor", "-nonsense")
	f("no setting \"GOGOGO\"", "tune", "-only", "GOGC,GOGOGO")
	f("-workers", "fanout", "-spawn", "-quiet")
	f("write report", "fanout", "-json", "/nonexistent/report.json")
	f("write report", "fanout", "-html", "/nonexistent/report.html")
	f("process has ended", "tune", "-redis-server", "true", "-nats-server", "true", "-runs", "1")
	f("no such file", "html", "/nonexistent.json")
}

// A report that can't be written hides no broken promise.
func TestTellFailure(t *testing.T) {
	f := func(was, want bench.Exit) {
		t.Helper()
		var out bytes.Buffer
		code, err := tell(&bench.Report{Exit: was}, nil, &common{json: "/nonexistent/report.json"}, &out)
		if code != want || err == nil {
			t.Errorf("exit %d, error %v, want %d", code, err, want)
		}
	}
	f(bench.ExitBroken, bench.ExitBroken)
	f(bench.ExitPass, bench.ExitError)
	f(bench.ExitThreshold, bench.ExitError)
}

func TestWritable(t *testing.T) {
	kept, made := filepath.Join(t.TempDir(), "kept"), filepath.Join(t.TempDir(), "made")
	if err := os.WriteFile(kept, []byte("report"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writable(kept, "", made); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(kept); err != nil || string(b) != "report" {
		t.Errorf("the former report is %q, %v", b, err)
	}
	if _, err := os.Stat(made); err == nil {
		t.Error("a file was left")
	}
}

func TestFlagsSuccess(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &common{addr: "a:1, b:2", pids: "3,4", sources: "127.0.0.9", apiKeyFile: secret, plant: "drop=1,double=2", insecure: true}
	o, err := f.options(os.Stderr)
	if err != nil || len(o.Addrs) != 2 || len(o.PIDs) != 2 || len(o.Sources) != 1 || o.APIKey != "s3cret" || o.Plant != (bench.Plant{Drop: 1, Double: 2}) || !o.TLS.InsecureSkipVerify {
		t.Errorf("%+v, %v", o, err)
	}
}
