package bench

import (
	"encoding/json"
	"regexp"
)

// userinfo is what stands before the host of a URL: a name and a password, or a
// token.
var userinfo = regexp.MustCompile(`(://)[^/"\s]*@`)

// Redacted is text without the names and passwords of the URLs in it, for
// reports and messages.
func Redacted(text string) string { return userinfo.ReplaceAllString(text, "${1}xxxxx@") }

// shown is a scenario's options as they go into a report.
func shown(options any) (json.RawMessage, error) {
	b, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(Redacted(string(b))), nil
}
