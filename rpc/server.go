package rpc

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
)

// Bounds of the serving half.
const (
	stopTimeout      = time.Second      // for calls in flight when Serve ends
	handshakeTimeout = 5 * time.Second  // for TLS and HTTP/2 of a new connection
	callsPerConn     = 64               // a peer needs one
	maxStreams       = 1024             // peers at once
	maxGrace         = 10 * time.Second // for a stream whose connection is too old
)

// Serve answers peers on lis until ctx ends, and returns when all of it has:
// nil then, or why lis failed before. It closes lis, and reports its health as
// grpc.health.v1. It may be run again, one at a time, with another lis.
func (s *Service) Serve(ctx context.Context, lis net.Listener) error {
	srv := grpc.NewServer(
		grpc.Creds(s.opts.Creds.transport()),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(s.opts.MaxMessage),
		grpc.MaxConcurrentStreams(callsPerConn),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime, PermitWithoutStream: true}),
		grpc.KeepaliveParams(s.connections()),
		grpc.WaitForHandlers(true),
		grpc.UnaryInterceptor(s.recoverUnary),
		grpc.StreamInterceptor(s.recoverStream),
	)
	h := health.NewServer()
	h.SetServingStatus(forwardpb.MessageForwardingService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(srv, h)
	streams, cancel := context.WithCancel(ctx)
	defer cancel()
	forwardpb.RegisterMessageForwardingServiceServer(srv, &server{svc: s, ctx: streams})

	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(lis) }()
	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("serve peers on %v: %w", lis.Addr(), err)
		cancel()
		srv.Stop()
	case <-ctx.Done():
		h.Shutdown()
		force := time.AfterFunc(stopTimeout, srv.Stop)
		srv.GracefulStop() // streams end with ctx
		force.Stop()
		<-failed
	}
	s.recv.wg.Wait()
	return err
}

// connections are bounded in age where there are certificates to be shown again.
// Callers of good will end their streams before, at a moment when nothing waits.
func (s *Service) connections() keepalive.ServerParameters {
	k := keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}
	if !s.opts.Creds.Insecure {
		k.MaxConnectionAge = s.opts.StreamAge + s.opts.StreamAge/4 // gRPC adds or takes a tenth
		k.MaxConnectionAgeGrace = min(s.opts.StreamAge/4, maxGrace)
	}
	return k
}

// server is one Serve: ctx ends all streams with it.
type server struct {
	forwardpb.UnimplementedMessageForwardingServiceServer
	svc *Service
	ctx context.Context
}

// Forward serves one peer's stream: its batches in, our acks out.
func (s *server) Forward(stream grpc.BidiStreamingServer[forwardpb.Frame, forwardpb.Frame]) error {
	return s.svc.recv.serve(s.ctx, stream)
}

// PushEvent hands one event to the sessions here; see push.go.
func (s *server) PushEvent(ctx context.Context, req *forwardpb.PushEventRequest) (*forwardpb.PushEventResponse, error) {
	return s.svc.push(ctx, req)
}

// recoverStream turns a panic into the end of one stream: what a peer sends
// never ends the process.
func (s *Service) recoverStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.recovered(&err)
	return next(srv, stream)
}

func (s *Service) recoverUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
	defer s.recovered(&err)
	return next(ctx, req)
}

func (s *Service) recovered(err *error) {
	if p := recover(); p != nil {
		s.tally.panics.Inc()
		s.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("serving a peer panicked")
		*err = status.Error(codes.Internal, "internal error")
	}
}
