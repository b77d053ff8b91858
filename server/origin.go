package server

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

var errOrigin = errors.New("not scheme://host[:port] or *")

// origins decides which pages may connect. Immutable.
type origins struct {
	any     bool
	allowed map[string]bool // normal form; nil: the request's own host
}

func newOrigins(list []string) (*origins, error) {
	o := &origins{}
	for _, s := range list {
		if strings.TrimSpace(s) == "*" {
			o.any = true
			continue
		}
		n, err := parseOrigin(s)
		if err != nil {
			return nil, err
		}
		if o.allowed == nil {
			o.allowed = map[string]bool{}
		}
		o.allowed[n] = true
	}
	return o, nil
}

// allow says whether r may come from where it says it does. A request without
// an Origin comes from no browser, so no page can have sent it.
func (o *origins) allow(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 || o.any {
		return true
	}
	if len(values) > 1 {
		return false
	}
	origin, err := parseOrigin(values[0])
	if err != nil {
		return false
	}
	if o.allowed != nil {
		return o.allowed[origin]
	}
	// The scheme is not compared: behind a proxy that ends TLS we see http.
	_, host, _ := strings.Cut(origin, "://")
	return host == trimDefaultPort(strings.ToLower(r.Host), origin)
}

// parseOrigin gives the normal form: lower case, default port left out. "null"
// (a sandboxed page) is no origin that could be allowed.
func parseOrigin(s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "*" {
		return s, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil ||
		u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return "", errOrigin
	}
	return u.Scheme + "://" + trimDefaultPort(u.Host, s), nil
}

// trimDefaultPort cuts the port that origin's scheme implies.
func trimDefaultPort(host, origin string) string {
	if strings.HasPrefix(origin, "https://") {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}
