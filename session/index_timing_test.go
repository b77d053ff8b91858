//go:build !race

package session

import (
	"context"
	"fmt"
	"testing"
)

func BenchmarkDeliver(b *testing.B) {
	for _, receivers := range []int{0, 1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("receivers=%d", receivers), func(b *testing.B) {
			p := newWorld().pod(b, "a@1")
			fill(p, 100, max(1, receivers), func(int) string { return "" })
			name := "acme.agent-7.chats"
			if receivers == 0 {
				name = "acme.nobody.chats"
			}
			ev := event(0, name)
			n := Partition(ev.Route.Company, ev.Route.Agent, testPartitions)
			var d Delivered[*sock]
			put := func(*sock) Put { return Queued }
			b.ReportAllocs()
			for b.Loop() {
				ev.Seq++
				p.m.Index().Deliver(n, ev, nil, put, &d)
			}
			if d.Receivers != receivers*int(ev.Seq) {
				b.Fatalf("%d receivers of %d events", d.Receivers, ev.Seq)
			}
			if receivers > 0 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(d.Receivers), "ns/receiver")
			}
		})
	}
}

func BenchmarkOpenAndClose(b *testing.B) {
	p := newWorld().pod(b, "a@1")
	fill(p, 100, 50, func(int) string { return "" })
	b.ReportAllocs()
	for b.Loop() {
		s := p.m.NewSession(&sock{}, alice, Profile{})
		if err := p.m.Open(context.Background(), s, Login{}, func(*Session[*sock], Ready) {}); err != nil {
			b.Fatal(err)
		}
		p.m.Close(s, ReasonClient, "")
	}
}

func BenchmarkVerify(b *testing.B) {
	r := ring(b, PurposeUser, testKeyHex, true)
	b.Run("cached=false", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Verify(userVector, testNow); err != nil {
				b.Fatal(err)
			}
		}
	})
	v, err := NewVerifier(VerifierOptions{Ring: r})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("cached=true", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), userVector); err != nil {
				b.Fatal(err)
			}
		}
	})
}
