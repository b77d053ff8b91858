package loop

import (
	"errors"
	"fmt"

	"github.com/gobwas/ws"
)

// Handler is told what happens on a Conn. No method may block. A method that
// panics costs its socket: it is closed with 1011.
type Handler interface {
	// Message is a complete, validated text or binary message. It runs on the
	// poller, in order; for bytes that came with the upgrade, in Adopt. payload
	// is lent for the call. No Message follows Conn.Close.
	Message(c *Conn, op ws.OpCode, payload []byte)
	// Tick comes from the sweeper: about a second after the adoption, with each
	// ping, and when it asked for; now is in unix seconds, and so is the next
	// Tick that it asks for, 0 for none. One that is under way may overlap
	// Closed.
	Tick(c *Conn, now uint32) (next uint32)
	// Closed is the last word about c, once. Any goroutine; one that began to
	// call Message or Tick before may still be in there.
	Closed(c *Conn, why End)
}

// End says what ended a Conn.
type End struct {
	// Code is a close code: the peer's (1005 if it sent none), that of our
	// Close or of what the peer did wrong, 1006 when there was no word.
	Code uint16
	// Local says that we began the close.
	Local bool
	// Err is nil after a close handshake; else what happened instead of it:
	// io.EOF, ErrTimeout, ErrClosed (the engine stopped), a *ProtocolError, or
	// an error of the socket.
	Err error
}

// Errors that callers branch on.
var (
	// ErrSlow says that the frame would pass the budget: nothing was queued.
	ErrSlow = errors.New("send budget used up")
	// ErrClosed says that the Conn or the Engine is closing or closed.
	ErrClosed = errors.New("connection closed")
	// ErrTimeout says that nothing was heard for PongTimeout, or in the middle of
	// a message for MessageTimeout, or that a close handshake took longer than
	// CloseTimeout.
	ErrTimeout = errors.New("connection timed out")
)

// ProtocolError is what a peer did against RFC 6455.
type ProtocolError struct {
	Code uint16 // close code that it earns: 1002, 1007, 1008 or 1009, or that of Options.Flood
	What string // for people and for the close frame
}

func (e *ProtocolError) Error() string { return fmt.Sprintf("protocol error %d: %s", e.Code, e.What) }

// Errors of the reader: one value each, so that a hostile peer costs no
// allocation.
var (
	errMaskMissing  = &ProtocolError{1002, "frame not masked"}
	errMaskPresent  = &ProtocolError{1002, "frame masked by a server"}
	errReservedBits = &ProtocolError{1002, "reserved bits set"}
	errOpCode       = &ProtocolError{1002, "unknown opcode"}
	errControlSize  = &ProtocolError{1002, "control frame over 125 bytes"}
	errControlFrag  = &ProtocolError{1002, "fragmented control frame"}
	errContinuation = &ProtocolError{1002, "continuation of nothing"}
	errInterleaved  = &ProtocolError{1002, "new message inside a message"}
	errLength       = &ProtocolError{1002, "length not in its shortest form"}
	errLengthBit    = &ProtocolError{1002, "length over 2^63"}
	errCloseBody    = &ProtocolError{1002, "bad close frame"}
	errCloseText    = &ProtocolError{1007, "close reason is not UTF-8"}
	errText         = &ProtocolError{1007, "text is not UTF-8"}
	errDeflate      = &ProtocolError{1007, "bad compressed data"}
	errSlowMessage  = &ProtocolError{1008, "message took too long"}
	errFlood        = &ProtocolError{1008, "too many frames that are no message"}
	errTooBig       = &ProtocolError{1009, "message too big"}
)

// Close codes that this package itself uses.
const (
	codeGoingAway = 1001
	codeNoStatus  = 1005
	codeAbnormal  = 1006
	codeInternal  = 1011
)
