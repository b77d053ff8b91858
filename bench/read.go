package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// The schema of reports.
//
// A report says its layout in `schema`: "daisi-bench/1". Within one number,
// fields are only added, and keep their meaning and unit: seconds, bytes, plain
// counts, shares of 1. A report of the same number is therefore read by every
// later daisi-bench; one of another number is refused. All its fields are listed
// in testdata/schema-1.txt, which a test compares with the Go types: a field
// that goes, or changes its type, fails it.
//
//	scenario, run, seed, started, seconds   what ran
//	exit, result, errors, interrupted       the verdict (see Exit), and what kept the run from its end
//	commit, machine, options                environment: versions of two reports compare only with like machine and options
//	figures                                 [{name, value, unit, note}]: what thresholds and comparisons use
//	thresholds                              [{text, figure, op, limit, value, ok}]
//	latencies                               name -> count, min … max in seconds, and hdr: the whole histogram, HdrHistogram V2
//	                                        compressed, base64, microseconds. X runs from the due instant, X_raw from the sending
//	oracle                                  copies owed, met, told; breaches by name; findings, one by one up to 64
//	logins, closes, error_frames            how logins went; ends not begun by the client, by close code
//	usage                                   CPU, processes and kernel memory of each measured window
//	server, slabs                           metrics of the pods, and slab caches, that changed
//	samples                                 the time series, a row a second: totals so far, and of that second delivery,
//	                                        delivery_raw, login (count, p50, p99, max) and, when it was read, server
//	generator                               how the load generator itself fared

// ReadReport reads a report that WriteJSON wrote, of this version or an older
// one of the same schema. Options come back as decoded JSON.
func ReadReport(rd io.Reader) (*Report, error) {
	b, err := io.ReadAll(rd)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	switch r.Schema {
	case Schema:
		return r, nil
	case "":
		return nil, fmt.Errorf("read report: it is none of daisi-bench: no schema in it")
	default:
		return nil, fmt.Errorf("read report: its schema is %q, this daisi-bench reads %q", r.Schema, Schema)
	}
}

// ReadFile reads a report from a file.
func ReadFile(name string) (*Report, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	defer f.Close()
	r, err := ReadReport(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}
