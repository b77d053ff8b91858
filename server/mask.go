package server

import (
	"net/url"
	"reflect"
	"strings"
	"time"
)

// masked stands where a secret would.
const masked = "***"

// Masked is the effective configuration, fit to be shown: nested maps under
// the names of the fields, secrets as "***", passwords cut out of URLs.
func (o Options) Masked() (map[string]any, error) {
	o, err := o.withDefaults()
	return maskStruct(reflect.ValueOf(o)), err
}

func maskStruct(v reflect.Value) map[string]any {
	out := make(map[string]any, v.NumField())
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		switch field.Tag.Get("mask") {
		case "-":
		case "secret":
			out[field.Name] = maskSecret(value.String())
		case "url":
			out[field.Name] = maskURL(value.String())
		default:
			out[field.Name] = maskValue(value)
		}
	}
	return out
}

func maskValue(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	default:
		if v.Kind() == reflect.Struct {
			return maskStruct(v)
		}
		return x
	}
}

func maskSecret(s string) string {
	if s == "" {
		return ""
	}
	return masked
}

// maskURL hides passwords; of a list ("nats://a,nats://b") each one. What
// can't be read as a URL is hidden whole, for nobody knows what is in it.
func maskURL(s string) string {
	if s == "" {
		return ""
	}
	parts, shown := []string{s}, shownInURLs()
	if u, err := url.Parse(s); err != nil || u.User == nil || strings.Contains(u.Host, ",") {
		parts = strings.Split(s, ",")
	}
	for i, part := range parts {
		if !strings.Contains(part, "://") && strings.Contains(part, "@") {
			return masked // the rest of a password with a comma, whose beginning looks like a port
		}
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Host == "" || u.Fragment != "" || strings.Contains(u.Path+u.RawQuery, "@") {
			parts[i] = masked // the last two: of a password that should have been escaped
			continue
		}
		if u.User != nil {
			// A bare user of NATS is a token, so it goes as well.
			u.User = url.User(masked)
		}
		if q := u.Query(); len(q) > 0 {
			for name := range q {
				if !shown[name] {
					q.Set(name, masked)
				}
			}
			u.RawQuery = q.Encode()
		}
		parts[i] = u.String()
	}
	return strings.Join(parts, ",")
}

// shownInURLs are the settings in a URL's query that hold no secret.
func shownInURLs() map[string]bool {
	return map[string]bool{
		"addr": true, "cluster": true, "master_name": true, "db": true, "ca": true, "cert": true, "key": true, "creds": true, "nkey": true,
		"dial_timeout": true, "read_timeout": true, "write_timeout": true, "pool_timeout": true, "pool_size": true,
	}
}
