package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

// Bounds of what a peer may say, beside Options.MaxMessage. An event or fence
// costs several times its bytes once it is decoded; maxItems bounds that.
const (
	maxOwner = 512
	maxInc   = 256
	maxItems = 1 << 16 // events, fences, or marks of one message
)

// inFrame is one Frame as it was read; exactly one of its parts is set, as
// kind says. It belongs to one stream's reader, which uses it again and again;
// what it hands out is new each time.
type inFrame struct {
	kind  byte // tagFrame…
	hello *forwardpb.Hello
	batch *session.Batch
	marks []*session.Batch
	ack   mark
	err   error // what is wrong with it; then nothing else is set

	partitions int
	incs       []string   // last incarnation by partition: the same one as before allocates nothing
	events     []rawEvent // scratch
}

// rawEvent points into the message.
type rawEvent struct {
	seq         uint64
	stamp       int64
	route, body []byte
}

func newInFrame(partitions int) *inFrame {
	return &inFrame{partitions: partitions, incs: make([]string, partitions)}
}

var (
	errFrame = errors.New("frame must hold exactly one of hello, batch, progress, ack")
	errItems = fmt.Errorf("more than %d events, fences or marks", maxItems)
	errUTF8  = errors.New("string is not UTF-8")

	errNumber = errors.New("field number is too large")
)

// decode reads b, which must not change afterwards: event bodies point into it.
func (f *inFrame) decode(b []byte) error {
	f.kind, f.hello, f.batch, f.marks, f.ack = 0, nil, nil, nil, mark{}
	var inner []byte
	for len(b) > 0 {
		field, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch field.tag {
		case tagFrameHello, tagFrameBatch, tagFrameProgress, tagFrameAck:
			// Protobuf would merge a repeated part; nobody sends that.
			if f.kind != 0 {
				return errFrame
			}
			f.kind, inner = byte(field.tag), field.bytes
		}
	}
	switch f.kind {
	case tagFrameHello:
		f.hello = &forwardpb.Hello{}
		return proto.Unmarshal(inner, f.hello)
	case tagFrameBatch:
		return f.decodeBatch(inner)
	case tagFrameProgress:
		return f.decodeProgress(inner)
	case tagFrameAck:
		return f.decodeAck(inner)
	default:
		return errFrame
	}
}

// field is one protobuf field; bytes or num is set by its wire type.
type field struct {
	tag   uint64
	num   uint64
	bytes []byte
}

// next splits the first field off b. Groups are skipped over, with tag 0.
func next(b []byte) (f field, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	if num > protowire.MaxValidNumber {
		return f, nil, errNumber // protowire lets it pass, the generated code does not
	}
	b = b[n:]
	f.tag = protowire.EncodeTag(num, typ)
	switch typ {
	case protowire.VarintType:
		f.num, n = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		f.num, n = protowire.ConsumeFixed64(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		f.tag = 0
		n = protowire.ConsumeFieldValue(num, typ, b)
	}
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	return f, b[n:], nil
}

func (f *inFrame) decodeBatch(b []byte) error {
	var version uint32
	var inc []byte
	batch := &session.Batch{}
	f.events = f.events[:0]
	for len(b) > 0 {
		field, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch field.tag {
		case tagBatchVersion:
			version = uint32(field.num)
		case tagBatchPartition:
			batch.N = int(uint32(field.num))
		case tagBatchFrom:
			batch.From = field.num
		case tagBatchUpto:
			batch.Upto = field.num
		case tagBatchInc:
			inc = field.bytes
		case tagBatchRevoked:
			batch.Revoked = field.num
		case tagBatchEvent:
			err = f.decodeEvent(field.bytes)
		case tagBatchFence:
			err = decodeFence(batch, field.bytes)
		}
		if err != nil {
			return err
		}
	}
	if version != wireVersion {
		return fmt.Errorf("batch version %d is not %d", version, wireVersion)
	}
	if err := f.setInc(batch, inc); err != nil {
		return err
	}
	if err := checkFences(batch, f.partitions); err != nil {
		return err
	}
	f.batch = batch
	return f.setEvents(batch)
}

func (f *inFrame) decodeEvent(b []byte) error {
	if len(f.events) >= maxItems {
		return errItems
	}
	var e rawEvent
	for len(b) > 0 {
		field, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch field.tag {
		case tagEventSeq:
			e.seq = field.num
		case tagEventStamp:
			e.stamp = int64(field.num)
		case tagEventRoute:
			e.route = field.bytes
			if !utf8.Valid(e.route) {
				return errUTF8
			}
		case tagEventBody:
			e.body = field.bytes
		}
	}
	f.events = append(f.events, e)
	return nil
}

// setEvents makes events of the raw ones. All routes share one string, and a
// route like the one before is neither copied nor parsed again.
func (f *inFrame) setEvents(batch *session.Batch) error {
	if len(f.events) == 0 {
		return nil
	}
	size := 0
	for i := range f.events {
		if i == 0 || !bytes.Equal(f.events[i].route, f.events[i-1].route) {
			size += len(f.events[i].route)
		}
	}
	var routes strings.Builder
	routes.Grow(size)
	batch.Events = make([]session.Event, len(f.events))
	last := batch.From
	for i := range f.events {
		raw := &f.events[i]
		if raw.seq <= last || raw.seq > batch.Upto {
			return fmt.Errorf("event %d is not in (%d, %d]: events must rise within the batch", raw.seq, last, batch.Upto)
		}
		last = raw.seq
		e := &batch.Events[i]
		e.Seq, e.Stamp, e.Body = raw.seq, raw.stamp, raw.body[:len(raw.body):len(raw.body)]
		if i > 0 && bytes.Equal(raw.route, f.events[i-1].route) {
			e.Route = batch.Events[i-1].Route
			continue
		}
		start := routes.Len()
		routes.Write(raw.route)
		route, ok := session.ParseRoute(routes.String()[start:])
		if !ok || session.Partition(route.Company, route.Agent, f.partitions) != batch.N {
			return fmt.Errorf("event %d has a route that is none of partition %d", raw.seq, batch.N)
		}
		e.Route = route
	}
	clear(f.events) // they would keep the message alive
	if cap(f.events) > maxItems/16 {
		f.events = nil
	}
	return nil
}

func decodeFence(batch *session.Batch, b []byte) error {
	if len(batch.Fences) >= maxItems {
		return errItems
	}
	var fence session.Fence
	for len(b) > 0 {
		field, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch field.tag {
		case tagFenceCompany:
			fence.Company, err = text(field.bytes)
		case tagFenceAgent:
			fence.Agent, err = text(field.bytes)
		case tagFenceUser:
			fence.User, err = text(field.bytes)
		case tagFenceEpoch:
			fence.Epoch = field.num
		}
		if err != nil {
			return err
		}
	}
	batch.Fences = append(batch.Fences, fence)
	return nil
}

func checkFences(batch *session.Batch, partitions int) error {
	for i := range batch.Fences {
		if fence := &batch.Fences[i]; session.Partition(fence.Company, fence.Agent, partitions) != batch.N {
			return fmt.Errorf("fence %d is none of partition %d", i, batch.N)
		}
	}
	return nil
}

func (f *inFrame) decodeProgress(b []byte) error {
	for len(b) > 0 {
		field, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		if field.tag != tagProgressMark {
			continue
		}
		if len(f.marks) >= maxItems {
			return errItems
		}
		if err := f.decodeMark(field.bytes); err != nil {
			return err
		}
	}
	return nil
}

func (f *inFrame) decodeMark(b []byte) error {
	var inc []byte
	batch := &session.Batch{}
	for len(b) > 0 {
		field, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch field.tag {
		case tagMarkPartition:
			batch.N = int(uint32(field.num))
		case tagMarkFrom:
			batch.From = field.num
		case tagMarkUpto:
			batch.Upto = field.num
		case tagMarkInc:
			inc = field.bytes
		}
	}
	f.marks = append(f.marks, batch)
	return f.setInc(batch, inc)
}

// setInc checks what batches and marks have in common.
func (f *inFrame) setInc(batch *session.Batch, inc []byte) error {
	switch {
	case batch.N >= f.partitions:
		return fmt.Errorf("partition %d is not below %d", batch.N, f.partitions)
	case batch.From > batch.Upto:
		return fmt.Errorf("batch ends at %d before it begins at %d", batch.Upto, batch.From)
	case len(inc) > maxInc:
		return fmt.Errorf("incarnation of %d bytes is longer than %d", len(inc), maxInc)
	case !utf8.Valid(inc):
		return errUTF8
	}
	if string(inc) != f.incs[batch.N] {
		f.incs[batch.N] = string(inc)
	}
	batch.Inc = f.incs[batch.N]
	return nil
}

func (f *inFrame) decodeAck(b []byte) error {
	for len(b) > 0 {
		field, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch field.tag {
		case tagAckPartition:
			f.ack.n = int(uint32(field.num))
		case tagAckUpto:
			f.ack.upto = field.num
		}
	}
	if f.ack.n >= f.partitions {
		return fmt.Errorf("ack of partition %d, which is not below %d", f.ack.n, f.partitions)
	}
	return nil
}

func text(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return "", errUTF8
	}
	return string(b), nil
}
