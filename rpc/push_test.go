package rpc

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

// pushTo calls PushEvent as an older publisher does, by generated code.
func pushTo(t *testing.T, o Options, req *forwardpb.PushEventRequest) (*forwardpb.PushEventResponse, error) {
	t.Helper()
	_, pod, _ := serve(t, o)
	conn, err := grpc.NewClient(pod.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return forwardpb.NewMessageForwardingServiceClient(conn).PushEvent(t.Context(), req)
}

func pushRequest(t *testing.T) *forwardpb.PushEventRequest {
	t.Helper()
	row, err := structpb.NewStruct(map[string]any{"n": 1.5, "s": "<é>", "l": []any{nil, true}})
	if err != nil {
		t.Fatal(err)
	}
	return &forwardpb.PushEventRequest{
		Payload: &forwardpb.EnrichedEventPayloadMessage{
			EventId: "e1", CompanyId: "acme", AgentId: "ag1", MessageId: "m1", ChatId: "c1",
			RowData: row, EventTime: "2025-01-01T00:00:00Z", EventType: "message",
		},
		TargetCompanyId: "acme", TargetAgentId: "ag1", TargetChatId: "628@s.whatsapp.net", SourcePodId: "old-1",
	}
}

func TestPushEvent(t *testing.T) {
	f := func(name string, delivered int, change func(*forwardpb.PushEventRequest), route session.Route, success bool, message string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			var got session.Event
			o := testOptions("b@1", &testSink{})
			o.Legacy = true
			o.Push = func(_ context.Context, ev session.Event) (int, error) { got = ev; return delivered, nil }
			req := pushRequest(t)
			change(req)
			answer, err := pushTo(t, o, req)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Success != success || answer.Message != message {
				t.Errorf("answered %v", answer)
			}
			if got.Route != route || got.Seq != 0 || got.Stamp == 0 {
				t.Errorf("event %+v, want route %+v", got, route)
			}
			if name != "message" {
				return
			}
			const body = `{"event_id":"e1","event_time":"2025-01-01T00:00:00Z","company_id":"acme","agent_id":"ag1","message_id":"m1","chat_id":"c1",` +
				`"row_data":{"l":[null,true],"n":1.5,"s":"<é>"},"event_type":"message"}`
			if string(got.Body) != body {
				t.Errorf("body %s\nwant %s", got.Body, body)
			}
		})
	}
	agent := session.Route{Company: "acme", Agent: "ag1", Kind: session.KindChats}
	chat := session.Route{Company: "acme", Agent: "ag1", Kind: session.KindMessages, Chat: "628@s.whatsapp.net"}
	f("message", 1, func(*forwardpb.PushEventRequest) {}, chat, true, "Event delivered")
	f("nobody", 0, func(*forwardpb.PushEventRequest) {}, chat, false, "No active local connection for chat_id")
	f("every session of the agent", 3, func(r *forwardpb.PushEventRequest) { r.TargetChatId = "" }, agent, true, "Event delivered")
	f("a chat's event of another type", 1, func(r *forwardpb.PushEventRequest) { r.Payload.EventType = "chat" }, chat, true, "Event delivered")
	f("agents", 1, func(r *forwardpb.PushEventRequest) { r.TargetChatId, r.Payload.EventType = "", "agent" },
		session.Route{Company: "acme", Agent: "ag1", Kind: session.KindAgents}, true, "Event delivered")
	f("contacts", 1, func(r *forwardpb.PushEventRequest) { r.TargetChatId, r.Payload.EventType = "", "contact" },
		session.Route{Company: "acme", Agent: "ag1", Kind: session.KindContacts}, true, "Event delivered")
	f("no row", 1, func(r *forwardpb.PushEventRequest) { r.Payload.RowData = nil }, chat, true, "Event delivered")
}

func TestPushEventRefuses(t *testing.T) {
	f := func(name string, want codes.Code, change func(*Options, *forwardpb.PushEventRequest)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			o := testOptions("b@1", &testSink{})
			o.Legacy = true
			o.Push = func(context.Context, session.Event) (int, error) {
				if want == codes.InvalidArgument {
					t.Error("pushed")
				}
				return 0, errors.New("not now")
			}
			req := pushRequest(t)
			change(&o, req)
			if _, err := pushTo(t, o, req); status.Code(err) != want {
				t.Errorf("%v, want %v", err, want)
			}
		})
	}
	f("off", codes.Unimplemented, func(o *Options, _ *forwardpb.PushEventRequest) { o.Legacy = false })
	f("missing payload", codes.InvalidArgument, func(_ *Options, r *forwardpb.PushEventRequest) { r.Payload = nil })
	f("no company", codes.InvalidArgument, func(_ *Options, r *forwardpb.PushEventRequest) { r.TargetCompanyId = "" })
	f("wildcard", codes.InvalidArgument, func(_ *Options, r *forwardpb.PushEventRequest) { r.TargetAgentId = ">" })
	f("control character in chat", codes.InvalidArgument, func(_ *Options, r *forwardpb.PushEventRequest) { r.TargetChatId = "a\nb" })
	f("delivery fails", codes.Unavailable, func(*Options, *forwardpb.PushEventRequest) {})
}
