package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadReportSuccess(t *testing.T) {
	var h Hist
	h.Record(1, time.Millisecond)
	l, err := h.Summary()
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{Schema: Schema, Scenario: "x", Latencies: map[string]Latency{"delivery": l}, Options: map[string]any{"rate": 500.0}}
	r.Add("sessions", 3, "", "note")
	r.Samples = []Sample{{At: 1, Delivery: &Beat{Count: 1, P99: 0.001}, Server: &ServerSample{Goroutines: 105}}}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	back, err := ReadReport(&b)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Fatalf("%v\n%+v\n%+v", err, back, r)
	}
}

func TestReadReportFailure(t *testing.T) {
	f := func(want, text string) {
		t.Helper()
		if _, err := ReadReport(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	f("no schema", "{}")
	f(`"daisi-bench/2"`, `{"schema":"daisi-bench/2"}`)
	f("invalid character", "<html>")
	f("unexpected end", `{"schema":"dai`)
	if _, err := ReadFile(filepath.Join(t.TempDir(), "none.json")); err == nil {
		t.Error("no error for a file that is not there")
	}
}

// A report that daisi-bench wrote at its first release still says the same.
func TestReadOldReport(t *testing.T) {
	r, err := ReadFile("testdata/report-73a77b9.json")
	if err != nil {
		t.Fatal(err)
	}
	if r.Scenario != "fanout" || r.Exit != ExitPass || r.Oracle.Sessions != 40 || r.Oracle.Met != r.Oracle.Expected || r.Oracle.Expected == 0 || len(r.Samples) == 0 || r.Machine.Cores != 2 {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"delivery.p99", "lost", "server_cpu_per_delivery", "deliveries"} {
		if v, ok := r.Figure(name); !ok || v < 0 {
			t.Errorf("%s: %v, %v", name, v, ok)
		}
	}
	if h, err := r.Latencies["delivery"].Histogram(); err != nil || h.TotalCount() != r.Latencies["delivery"].Count {
		t.Errorf("histogram: %v", err)
	}
}

// Fields of a schema never go and never change their type; new ones are added to
// the file, which this test prints.
func TestSchemaFields(t *testing.T) {
	now := map[string]string{}
	fields(reflect.TypeFor[Report](), "", now)
	b, err := os.ReadFile("testdata/schema-1.txt")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, kind, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			written[name] = kind
		}
	}
	for name, kind := range written {
		if now[name] != kind {
			t.Errorf("field %s was %s and is %q: that takes a new schema", name, kind, now[name])
		}
	}
	var list []string
	for name, kind := range now {
		list = append(list, name+" "+kind+"\n")
		if written[name] == "" {
			t.Errorf("field %s is not in testdata/schema-1.txt", name)
		}
	}
	if t.Failed() {
		slices.Sort(list)
		t.Logf("testdata/schema-1.txt should read:\n%s", strings.Join(list, ""))
	}
}

// fields lists the JSON fields of a type: dotted, [] for lists, * for maps.
func fields(t reflect.Type, path string, out map[string]string) {
	switch t.Kind() {
	case reflect.Pointer:
		fields(t.Elem(), path, out)
		return
	case reflect.Slice:
		fields(t.Elem(), path+"[]", out)
		return
	case reflect.Map:
		fields(t.Elem(), path+".*", out)
		return
	case reflect.Struct: // but those that count as one field
		if t == reflect.TypeFor[time.Time]() || t == reflect.TypeFor[Report]() && path != "" {
			break // a report in a report has the fields of a report
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-":
			case f.Anonymous && name == "":
				fields(f.Type, path, out)
			default:
				fields(f.Type, strings.TrimPrefix(path+"."+name, "."), out)
			}
		}
		return
	}
	out[path] = fmt.Sprint(t.Kind())
}
