package server

import (
	"bytes"
	"strings"
)

// crooked are families of the metrics library whose names contradict their
// types by Prometheus's rules; nobody needs them.
var crooked = []string{"go_cgo_calls_count", "go_cpu_count", "go_gc_forced_count"}

// describe completes what the metrics library writes: it leaves HELP empty,
// and says gauge of totals that it copies from /proc. The result passes
// `promtool check metrics`.
func describe(text []byte) []byte {
	out := make([]byte, 0, len(text)+len(text)/4)
	for line := range bytes.Lines(text) {
		s := string(line)
		switch word := strings.Fields(s); {
		case ofAny(s, word):
		case len(word) == 3 && word[1] == "HELP":
			out = append(out, "# HELP "+word[2]+" "+helpOf(word[2])+"\n"...)
		case len(word) == 4 && word[1] == "TYPE" && strings.HasPrefix(word[2], "process_io_") && strings.HasSuffix(word[2], "_total"):
			out = append(out, "# TYPE "+word[2]+" counter\n"...)
		default:
			out = append(out, line...)
		}
	}
	return out
}

// ofAny says whether a line belongs to a crooked family.
func ofAny(line string, word []string) bool {
	for _, name := range crooked {
		if strings.HasPrefix(line, name+" ") || len(word) > 2 && word[0] == "#" && word[2] == name {
			return true
		}
	}
	return false
}

// helpOf is the sentence of a family: ours have one each.
func helpOf(name string) string {
	switch text := help[name]; {
	case text != "":
		return text
	case strings.HasPrefix(name, "go_"):
		return "Of the Go runtime."
	default:
		return "Of the process, by /proc."
	}
}
