package server

import (
	"strings"
	"testing"
	"time"
)

func BenchmarkDecode(b *testing.B) {
	for name, message := range map[string]string{
		"message=ready":  `{"type":"ready"}`,
		"message=select": `{"type":"select_chat","payload":{"chat_id":"628123456789@s.whatsapp.net","ack":true}}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			m := []byte(message)
			for b.Loop() {
				if _, err := decode(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncodeEvent(b *testing.B) {
	row := `"row_data":{"a":"` + strings.Repeat("x", 150) + `","n":12345}`
	for name, body := range map[string]string{
		"type=there":   `{"event_id":"e1",` + row + `,"event_type":"chat"}`,
		"type=missing": `{"event_id":"e1",` + row + `}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ev := event("chats", body)
			for b.Loop() {
				eventFrame(ev)
			}
		})
	}
}

func BenchmarkEncodeReady(b *testing.B) {
	b.ReportAllocs()
	r := readyInfo{
		Session: "pod-1@0123456789abcdef/12345", Epoch: 1795419496884045, Pod: "pod-1", Stream: "51df547cb7916811", Seq: 123456,
		Window: 5 * time.Minute, Now: time.Now(), Limits: readyLimits{32 << 10, 16, 1 << 20},
	}
	for b.Loop() {
		encodeReady(r)
	}
}
