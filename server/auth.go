package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"
)

// apiKey is a configured key, compared by hash: neither its bytes nor its
// length show in the time a comparison takes.
type apiKey struct {
	set  bool
	hash [sha256.Size]byte
}

func newAPIKey(s string) apiKey { return apiKey{s != "", sha256.Sum256([]byte(s))} }

func (k apiKey) equal(s string) bool {
	hash := sha256.Sum256([]byte(s))
	return subtle.ConstantTimeCompare(k.hash[:], hash[:]) == 1 && k.set
}

// edgeKeys are the keys for doors; those for tokens are in verifiers.
type edgeKeys struct {
	login, mint, admin apiKey
}

func newEdgeKeys(o AuthOptions) edgeKeys {
	return edgeKeys{newAPIKey(o.APIKey), newAPIKey(o.MintKey), newAPIKey(o.AdminKey)}
}

// givenKey is the API key of a request: header, else query.
func givenKey(r *http.Request, query url.Values) string {
	if k := r.Header.Get("X-API-Key"); k != "" {
		return k
	}
	return query.Get("x-api-key")
}

// givenToken is the token of a request: query, Authorization: Bearer, or a
// subprotocol offer "token.<token>", which is how a browser can send one that
// is in no URL. All but the first are new here, so the query comes first.
func givenToken(r *http.Request, query url.Values) string {
	if t := query.Get("token"); t != "" {
		return t
	}
	if scheme, t, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(t)
	}
	for _, offer := range offers(r) {
		if t, ok := strings.CutPrefix(offer, "token."); ok {
			return t
		}
	}
	return ""
}

// Subprotocols that are answered; the second asks for the new frames.
const (
	protocolJSON   = "json.v1"
	protocolResume = "json.v1+resume"
)

// subprotocol is the first offer that we speak, "" if none is.
func subprotocol(r *http.Request) string {
	for _, offer := range offers(r) {
		if offer == protocolJSON || offer == protocolResume {
			return offer
		}
	}
	return ""
}

// offers are the subprotocols a client offers, in its order.
func offers(r *http.Request) []string {
	values := r.Header.Values("Sec-Websocket-Protocol")
	if len(values) == 0 {
		return nil
	}
	list := strings.Split(strings.Join(values, ","), ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// checkAdmin is nil for the admin key.
func (e *edge) checkAdmin(given string) *fault {
	var f fault
	switch {
	case !e.keys.admin.set:
		f = faultNotFound.with("no admin key is configured, so this is off")
	case given == "":
		f = faultAdminMissing
	case !e.keys.admin.equal(given):
		f = faultAdminWrong
	default:
		return nil
	}
	return &f
}
