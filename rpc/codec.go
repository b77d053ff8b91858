package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec writes and reads the frames of the forward stream by hand; everything
// else (PushEvent, health, Hello) goes through gRPC's own. On the wire both are
// the same protobuf.
type codec struct {
	encoding.CodecV2
}

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Marshal writes an outFrame into one pooled buffer of the exact size.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*outFrame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	size := f.size()
	if mem.IsBelowBufferPoolingThreshold(size) {
		return mem.BufferSlice{mem.SliceBuffer(f.append(make([]byte, 0, size)))}, nil
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	*buf = f.append((*buf)[:0])
	return mem.BufferSlice{mem.NewBuffer(buf, pool)}, nil
}

// Unmarshal reads into an inFrame from one copy of the message, made for it
// alone: events outlive the call and point into the copy. What is wrong with
// the frame is left in its err, since gRPC would hide an error from here behind
// one of its own.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*inFrame)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	f.err = f.decode(data.Materialize())
	return nil
}
