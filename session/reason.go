package session

import (
	"net/http"
	"time"
)

// Reason says why a session ended, or why it never began. It is the one
// vocabulary for close codes, HTTP statuses, error codes and metric labels.
type Reason uint8

// All reasons. Order is free; the table below is complete (a test looks).
const (
	ReasonClient Reason = iota
	ReasonGone
	ReasonTimeout
	ReasonProtocol
	ReasonUTF8
	ReasonTooBig
	ReasonReplaced
	ReasonConflict
	ReasonAPIKey
	ReasonToken
	ReasonExpired
	ReasonRevoked
	ReasonDenied
	ReasonBadRequest
	ReasonOrigin
	ReasonRate
	ReasonSlow
	ReasonGap
	ReasonDraining
	ReasonOverloaded
	ReasonLost
	ReasonKilled
	ReasonSubscription
	ReasonInternal
	reasons // how many there are
)

// Reconnect tells a client what to do after an end.
type Reconnect string

// What a client should do next.
const (
	ReconnectNo      Reconnect = "no"
	ReconnectToken   Reconnect = "after a new token"
	ReconnectLater   Reconnect = "after the delay"
	ReconnectResume  Reconnect = "yes, with resume"
	ReconnectHinted  Reconnect = "yes, at the hinted time"
	ReconnectBackoff Reconnect = "yes, backing off"
)

type reasonRow struct {
	label     string // metric label
	code      string // error code in frames and bodies, empty: no error frame
	message   string // for people
	status    int    // HTTP, 0: can't happen before the 101
	close     uint16 // WebSocket close code
	closeText string // WebSocket close reason
	reconnect Reconnect
}

var reasonTable = [reasons]reasonRow{
	ReasonClient:       {"client", "", "closed by the client", 0, 1000, "", ReconnectNo},
	ReasonGone:         {"gone", "", "connection lost", 0, 1006, "", ReconnectBackoff},
	ReasonTimeout:      {"timeout", "", "nothing was heard for the pong timeout", 0, 1001, "timeout", ReconnectResume},
	ReasonProtocol:     {"protocol", "", "broke RFC 6455", 0, 1002, "protocol-error", ReconnectNo},
	ReasonUTF8:         {"utf8", "", "text that is not UTF-8", 0, 1007, "invalid-utf8", ReconnectNo},
	ReasonTooBig:       {"too_big", "", "message over the limit", 0, 1009, "message-too-big", ReconnectNo},
	ReasonReplaced:     {"replaced", "SessionConflict", "Session replaced by a newer connection", http.StatusConflict, 4402, "session-replaced", ReconnectNo},
	ReasonConflict:     {"conflict", "SessionConflict", "Session already active elsewhere", http.StatusConflict, 4402, "session-conflict", ReconnectNo},
	ReasonAPIKey:       {"api_key", "InvalidAPIKey", "API key missing or wrong", http.StatusUnauthorized, 4401, "invalid-api-key", ReconnectNo},
	ReasonToken:        {"token", "InvalidToken", "Token missing, malformed, or not for this path", http.StatusForbidden, 4403, "invalid-token", ReconnectToken},
	ReasonExpired:      {"expired", "InvalidToken", "Token expired", http.StatusForbidden, 4403, "token-expired", ReconnectToken},
	ReasonRevoked:      {"revoked", "InvalidToken", "Token revoked", http.StatusForbidden, 4403, "token-revoked", ReconnectToken},
	ReasonDenied:       {"denied", "Forbidden", "Not allowed by this token", http.StatusForbidden, 4403, "denied", ReconnectNo},
	ReasonBadRequest:   {"bad_request", "BadRequest", "Bad request", http.StatusBadRequest, 4400, "bad-request", ReconnectNo},
	ReasonOrigin:       {"origin", "OriginNotAllowed", "Origin not allowed", http.StatusForbidden, 4403, "origin-not-allowed", ReconnectNo},
	ReasonRate:         {"rate", "RateLimitExceeded", "Too many requests", http.StatusTooManyRequests, 4429, "rate-limit-exceeded", ReconnectLater},
	ReasonSlow:         {"slow", "SlowConsumer", "Too slow: the send budget is used up", 0, 4408, "slow-consumer", ReconnectResume},
	ReasonGap:          {"gap", "SlowConsumer", "Events were missed", 0, 4408, "gap", ReconnectResume},
	ReasonDraining:     {"draining", "Draining", "Service shutting down", http.StatusServiceUnavailable, 1001, "draining", ReconnectHinted},
	ReasonOverloaded:   {"overloaded", "Overloaded", "Can't take this now", http.StatusServiceUnavailable, 1013, "overloaded", ReconnectBackoff},
	ReasonLost:         {"lost", "Overloaded", "Session could not be confirmed", http.StatusServiceUnavailable, 1013, "session-unconfirmed", ReconnectResume},
	ReasonKilled:       {"killed", "SessionKilled", "Closed by an operator", http.StatusServiceUnavailable, 1008, "closed-by-operator", ReconnectBackoff},
	ReasonSubscription: {"subscription", "SubscriptionFailure", "Could not subscribe", http.StatusInternalServerError, 1011, "subscription-failure", ReconnectBackoff},
	ReasonInternal:     {"internal", "InternalServerError", "Internal error", http.StatusInternalServerError, 1011, "internal-error", ReconnectBackoff},
}

// Reasons is how many there are, for tables indexed by Reason.
const Reasons = int(reasons)

// Label is the metric label.
func (r Reason) Label() string { return reasonTable[r].label }

// Code is the error code of frames and bodies; empty when none is sent.
func (r Reason) Code() string { return reasonTable[r].code }

// Message is the sentence for people that goes with Code.
func (r Reason) Message() string { return reasonTable[r].message }

// Status is the HTTP status of a refused login, 0 where there can be none.
func (r Reason) Status() int { return reasonTable[r].status }

// CloseCode is the WebSocket close code.
func (r Reason) CloseCode() uint16 { return reasonTable[r].close }

// CloseText is the WebSocket close reason.
func (r Reason) CloseText() string { return reasonTable[r].closeText }

// Reconnect is what the client should do.
func (r Reason) Reconnect() Reconnect { return reasonTable[r].reconnect }

// String is the label.
func (r Reason) String() string { return r.Label() }

// Refusal is the error of a login that was not let in: Reason decides status
// and code, Details says what to change, Err is for the log only.
type Refusal struct {
	Reason  Reason
	Details string
	Again   time.Duration // after which it may be tried again; 0: unknown
	Err     error
}

// Error gives all there is, for logs.
func (e *Refusal) Error() string {
	s := e.Reason.Message()
	if e.Details != "" {
		s += ": " + e.Details
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Refusal) Unwrap() error { return e.Err }
