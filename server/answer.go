package server

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/daisi/daisi-ws/session"
)

// fault is an HTTP answer that is no success: {"code","message","details"}.
type fault struct {
	Reason  session.Reason // decides the close code when told over WebSocket
	Status  int
	Code    string
	Message string
	Details string
	Retry   int // seconds, 0: no Retry-After
}

// Faults of plain HTTP, beside those of session.Reason.
var (
	faultNotFound = fault{Reason: session.ReasonBadRequest, Status: http.StatusNotFound, Code: "NotFound", Message: "Nothing is here"}
	faultMethod   = fault{Reason: session.ReasonBadRequest, Status: http.StatusMethodNotAllowed, Code: "MethodNotAllowed", Message: "Not with this method"}
	faultTooLarge = fault{Reason: session.ReasonBadRequest, Status: http.StatusRequestEntityTooLarge, Code: "BadRequest", Message: "Body too large"}

	faultAdminMissing = fault{Reason: session.ReasonAPIKey, Status: http.StatusUnauthorized, Code: "E4001", Message: "Admin API key missing"}
	faultAdminWrong   = fault{Reason: session.ReasonAPIKey, Status: http.StatusForbidden, Code: "E4003", Message: "Admin API key wrong"}
)

func (f fault) with(details string) fault {
	f.Details = details
	return f
}

// faultOf is the answer to a refused login or request.
func faultOf(r session.Reason, details string) fault {
	f := fault{Reason: r, Status: r.Status(), Code: r.Code(), Message: r.Message(), Details: details}
	if f.Status == 0 { // an end that no login can come to; say at least that it failed
		f.Status, f.Code = http.StatusInternalServerError, session.ReasonInternal.Code()
	}
	return f
}

func (f fault) write(w http.ResponseWriter) {
	if k, ok := w.(*keyWriter); ok && f.Reason == session.ReasonAPIKey {
		k.wrong = true
	}
	h := w.Header()
	if f.Retry > 0 {
		h.Set("Retry-After", strconv.Itoa(f.Retry))
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(f.Status)
	// A client that is gone can't be told; there is nobody else to tell.
	_, _ = w.Write(append(appendError(nil, f.Code, f.Message, f.Details), '\n'))
}

// writeJSON answers with v, which must be encodable.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		faultOf(session.ReasonInternal, "").write(w)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

const requestIDHeader = "X-Request-Id"

// requestID keeps an id that is safe to log and to send on, and makes one
// where there is none such.
func requestID(r *http.Request) string {
	if id := r.Header.Get(requestIDHeader); cleanRequestID(id) {
		return id
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func cleanRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
