package rpc

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
)

// Transport settings of both ends. Windows are set together: one alone would
// shrink the other to 64 KiB.
const (
	streamWindow     = 1 << 20
	connWindow       = 4 << 20
	keepaliveTime    = 10 * time.Second // of silence before a ping
	keepaliveTimeout = 3 * time.Second  // for its answer
	keepaliveMinTime = 5 * time.Second  // between pings of a client, else it is cut off
)

// grpcDialer opens each stream on a connection of its own, so that the only
// backoff is the peer's.
type grpcDialer struct {
	opts *Options
}

func (d grpcDialer) dial(ctx context.Context, addr string) (link, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(d.opts.Creds.transport()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(d.opts.MaxMessage), grpc.MaxCallSendMsgSize(d.opts.MaxMessage)),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to peer: %w", err)
	}
	stream, err := forwardpb.NewMessageForwardingServiceClient(conn).Forward(ctx)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to peer: %w", err)
	}
	return &grpcLink{conn: conn, stream: stream}, nil
}

// grpcLink is a stream and the connection that is only for it.
type grpcLink struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
}

func (l *grpcLink) send(m any) error      { return l.stream.SendMsg(m) }
func (l *grpcLink) recv(f *inFrame) error { return l.stream.RecvMsg(f) }
func (l *grpcLink) close()                { l.conn.Close() }
