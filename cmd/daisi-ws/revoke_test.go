package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The admin key is for the gateway alone: an answer that sends the request on
// is none, and nobody else is told the key.
func TestAdminKeyGoesNowhereElse(t *testing.T) {
	told := ""
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told = r.Header.Get("X-API-Key") }))
	defer other.Close()
	asked := ""
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("X-API-Key")
		http.Redirect(w, r, other.URL+"/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer gateway.Close()
	environ := []string{
		"DWS_AUTH_ADMIN_KEY=admin-key-1234567890", "DWS_INTERNAL_ADDR=" + strings.TrimPrefix(gateway.URL, "http://"),
	}
	code, out, errs := call(environ, "token", "revoke", "company", "acme")
	if asked != "admin-key-1234567890" {
		t.Fatalf("the gateway was told %q: %d %s %s", asked, code, out, errs)
	}
	if code == 0 || !strings.Contains(errs, "307") || told != "" {
		t.Errorf("exit %d, %s; another server was told %q", code, errs, told)
	}
}
