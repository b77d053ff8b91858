package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/daisi/daisi-ws/session"
)

// strangeIDs are tried wherever an id goes.
func strangeIDs() []string {
	ids := []string{
		"", ".", "..", "*", ">", "a.b", "acme.*", "acme.>", "acme ", " acme", "acme\x00", "acme\n", "acme\r\nX-Evil: 1", "acme\u0085", "acm\u00e9",
		"ACME", "acme/ag1", "acme%2Fag1", "acme:ag1", "{acme}", "acme|ag1", "acme@1", "*admin", "аcme", "acme\u200b", "\u202eemca", "用户", "\xff\xfe",
		"$JS", "_INBOX", "wa_stream", "null", "undefined", "0", "-1", "acme'--", `acme"`, `acme\`, "<script>", "rival",
		strings.Repeat("a", session.MaxID+1), strings.Repeat("ü", session.MaxID/2+1), strings.Repeat("a", 10_000),
	}
	return ids
}

// refusedForm is an answer without what is allowed to differ.
func refusedForm(status int, body string) string {
	var f struct{ Code, Message, Details string }
	if err := json.Unmarshal([]byte(body), &f); err != nil {
		return fmt.Sprintf("%d, no error body", status)
	}
	return fmt.Sprintf("%d %s: %s: %s", status, f.Code, f.Message, f.Details)
}

// escapeAll escapes every byte, so that all of an id arrives as one segment.
func escapeAll(id string) string {
	var b strings.Builder
	for i := range len(id) {
		fmt.Fprintf(&b, "%%%02X", id[i])
	}
	return b.String()
}

// No id, however made, breaks a log line or a label.
func TestIDsInLogsAndLabels(t *testing.T) {
	h := newHouse(t, nil)
	for _, id := range strangeIDs() {
		if session.CheckTenantID("company", id) != nil {
			continue
		}
		h.loginOf(session.Claims{Company: id, Agent: id, User: id}, "")
		status, _, _ := h.do(call{method: "DELETE", path: "/admin/sessions/" + escapeAll(id) + "/" + escapeAll(id) + "/" + escapeAll(id), internal: true, header: adminHeader})
		if status != 200 {
			t.Errorf("%q: %d", id, status)
		}
		audited(t, h, "DELETE /admin/sessions/{company}/{agent}/{user}", 200, "", "key:"+fingerprint(testAdminKey))
	}
	lines := 0
	for line := range strings.Lines(h.log.String()) {
		if lines++; !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %q", line)
		}
	}
	_, _, metrics := h.do(call{path: "/metrics", internal: true})
	for _, id := range []string{"rival", "acme", "用户", "$JS"} {
		if strings.Contains(metrics, id) {
			t.Errorf("%q is in the metrics", id)
		}
	}
	if lines < 20 {
		t.Errorf("only %d lines", lines)
	}
}
