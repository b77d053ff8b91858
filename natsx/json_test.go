package natsx

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

var goodBodies = []string{
	`{}`, ` {} `, "\r\n\t{\n}\n", `{"a":1}`, `{"a":-0.5e+10,"b":[1,2,{"c":[]}],"d":{"e":null}}`,
	`{"a":true,"b":false,"c":null,"d":"x","":{}}`, `{"a":"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"}`,
	`{"ключ":"значение 中文 🙂"}`, `{"a":[[[[[]]]],[{}],[[],[]]]}`, `{"a":0,"b":10,"c":1E5,"d":0e0}`,
	`{"a":"` + strings.Repeat("x", 1000) + `\n` + strings.Repeat("é", 100) + `"}`,
	`{"a":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `}`,
	"{\"a\":\"\x7f\"}", `{"a" : 1 , "b" : [ 1 , 2 ] }`,
}

var badBodies = []string{
	``, ` `, `null`, `1`, `"a"`, `[]`, `[{}]`, `{`, `}`, `{}}`, `{}{}`, `{},`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`,
	`{"a":1 "b":2}`, `{a:1}`, `{'a':1}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":-}`, `{"a":1e}`, `{"a":1e+}`,
	`{"a":tru}`, `{"a":nulll}`, `{"a":True}`, `{"a":NaN}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[}`, `{"a":]}`,
	`{"a":{]}`, `{"a":[}]`, `{"a":"`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\`, "{\"a\":\"\n\"}", "{\"a\":\"12345678\x01\"}",
	"{\"a\":\"\xff\"}", "{\"a\":\"\xc3\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"\xff\":1}", "\ufeff{}", "{}\x00", "\x00{}", "{\u00a0}", "{}//c",
	`{"a":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`,
	`{"a":` + strings.Repeat("[", 1<<20),
	strings.Repeat(`{"a":`, 1<<20),
}

func TestJSONObject(t *testing.T) {
	for _, s := range goodBodies {
		got, ok := jsonObject([]byte(s))
		if !ok || string(got) != strings.Trim(s, " \t\r\n") || !json.Valid([]byte(s)) {
			t.Errorf("%.60q: got %.60q, %v; want it trimmed", s, got, ok)
		}
		if cap(got) != len(got) {
			t.Errorf("%.60q: appending to it would write into its neighbour", s)
		}
	}
	for _, s := range badBodies {
		if got, ok := jsonObject([]byte(s)); ok {
			t.Errorf("%.60q: got %.60q; want a refusal", s, got)
		}
	}
}

// FuzzJSONObject compares with the standard library, which takes any UTF-8
// and any depth up to 10,000.
func FuzzJSONObject(f *testing.F) {
	for _, s := range append(goodBodies, badBodies[:len(badBodies)-2]...) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got, ok := jsonObject(b)
		if !bytes.Equal(b, before) {
			t.Fatal("input was changed")
		}
		trimmed := bytes.Trim(b, " \t\r\n")
		want := json.Valid(b) && utf8.Valid(b) && len(trimmed) > 0 && trimmed[0] == '{'
		if depth(b) > maxDepth {
			want = false
		}
		if ok != want {
			t.Fatalf("%q: got %v; want %v", b, ok, want)
		}
		if ok && !bytes.Equal(got, trimmed) {
			t.Fatalf("%q: got %q", b, got)
		}
	})
}

// depth of nesting in valid JSON.
func depth(b []byte) (deepest int) {
	in, d := false, 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case in && c == '\\':
			i++
		case c == '"':
			in = !in
		case in:
		case c == '{' || c == '[':
			d++
			deepest = max(deepest, d)
		case c == '}' || c == ']':
			d--
		}
	}
	return deepest
}
