package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

// Results of PushEvent, as metric labels.
const (
	pushDelivered = "delivered"
	pushNobody    = "nobody"
	pushBad       = "bad_request"
	pushFailed    = "failed"
)

// Answers of PushEvent that its callers know.
const (
	saidDelivered = "Event delivered"
	saidNobody    = "No active local connection for chat_id"
)

// push answers PushEvent, the call of older publishers. It has no sequence, so
// the event is handed to whoever wants it now.
func (s *Service) push(ctx context.Context, req *forwardpb.PushEventRequest) (*forwardpb.PushEventResponse, error) {
	if !s.opts.Legacy {
		return nil, status.Error(codes.Unimplemented, "PushEvent is off: set DWS_RPC_LEGACY=true to have it")
	}
	ev, err := eventOf(req)
	if err != nil {
		s.tally.pushed[pushBad].Inc()
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	delivered, err := s.opts.Push(ctx, ev)
	switch {
	case err != nil:
		s.tally.pushed[pushFailed].Inc()
		return nil, status.Error(codes.Unavailable, fmt.Sprintf("deliver event: %v", err))
	case delivered == 0:
		s.tally.pushed[pushNobody].Inc()
		return &forwardpb.PushEventResponse{Message: saidNobody}, nil
	default:
		s.tally.pushed[pushDelivered].Inc()
		return &forwardpb.PushEventResponse{Success: true, Message: saidDelivered}, nil
	}
}

// eventOf makes an event of a request. Its route is always one that a subject
// could have: with a chat it is a message to it, without one it is for all
// sessions of the agent.
func eventOf(req *forwardpb.PushEventRequest) (session.Event, error) {
	if req.GetPayload() == nil {
		return session.Event{}, errors.New("payload is missing")
	}
	route := session.Route{Company: req.TargetCompanyId, Agent: req.TargetAgentId, Kind: kindOf(req.Payload.EventType), Chat: req.TargetChatId}
	err := errors.Join(session.CheckTenantID("target_company_id", route.Company), session.CheckTenantID("target_agent_id", route.Agent))
	switch {
	case route.Chat != "":
		err = errors.Join(err, session.CheckChat(route.Chat))
		route.Kind = session.KindMessages
	case route.Kind == session.KindMessages:
		route.Kind = session.KindChats
	}
	if err != nil {
		return session.Event{}, err
	}
	body, err := bodyOf(req.Payload)
	if err != nil {
		return session.Event{}, err
	}
	return session.Event{Stamp: time.Now().UnixNano(), Route: route, Body: body}, nil
}

// kindOf is the kind of subject that the publisher would have used.
func kindOf(eventType string) string {
	switch eventType {
	case "message":
		return session.KindMessages
	case "agent":
		return session.KindAgents
	case "contact":
		return session.KindContacts
	default:
		return session.KindChats
	}
}

// pushedBody is the publisher's JSON, in the order it is known by.
type pushedBody struct {
	EventID   string         `json:"event_id"`
	EventTime string         `json:"event_time"`
	CompanyID string         `json:"company_id"`
	AgentID   string         `json:"agent_id,omitempty"`
	MessageID string         `json:"message_id,omitempty"`
	ChatID    string         `json:"chat_id,omitempty"`
	RowData   map[string]any `json:"row_data"`
	EventType string         `json:"event_type,omitempty"`
}

func bodyOf(p *forwardpb.EnrichedEventPayloadMessage) ([]byte, error) {
	row := p.GetRowData().AsMap() // never nil
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(pushedBody{
		EventID:   p.EventId,
		EventTime: p.EventTime,
		CompanyID: p.CompanyId,
		AgentID:   p.AgentId,
		MessageID: p.MessageId,
		ChatID:    p.ChatId,
		RowData:   row,
		EventType: p.EventType,
	})
	if err != nil {
		return nil, fmt.Errorf("write row_data as JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
