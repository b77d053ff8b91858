// Package natsx reads events from NATS JetStream.
//
// The publisher's stream (wa_stream, subjects websocket.<company>.<agent>.<kind>[.<chat>])
// is never read by us. A stream of our own (dws_events) sources it, on the
// server, with the partition in the subject: dws.<N>.<company>.<agent>.<kind>[.<chat>].
// It is the buffer between publishers and sockets, the order of events
// (session.Event.Seq), and what a resume replays.
//
// Promises:
//
//  1. A Reader returns the events of its partition in stream order, each once,
//     none left out: it counts the consumer's own sequence and starts again
//     from its position on any gap, error or long silence, and when told that
//     the leader holds what did not come. What the stream dropped before it was
//     read is told: TrimmedError.
//  2. Read returns only when every event of the range was handed over, which
//     it asks the stream's leader: a replica that lags looks complete.
//  3. Neither ever mixes two incarnations of the stream: each belongs to the
//     stream id it began with, and ends with ErrStream under another.
//  4. A message that is no event (Poison) is skipped, counted and listed by
//     both, and never tried again. Position moves past it.
//
// The stream id is random, made with the stream, and kept in its metadata with
// the number of partitions and the incarnation of the publisher's stream
// (its creation time) that the sources were last set up for. Once a second
// Run looks: ours gone is made again, sourcing from now, under a new id; ours
// rewound gets a new id; the publisher's made anew, to which sourcing is deaf
// for 15 s and more, has our sources taken out and put in again. That is safe
// when several pods do it at once: the server (2.15 and later) knows how far
// it had come in which incarnation.
//
// Goroutines: Run, and nats.go's few per connection. A Reader has none: all
// its work is done by whoever calls Next, one goroutine at a time. Client's
// other methods may be called from any goroutine.
//
// Cost, with every process on the same two busy cores: an event of 300 B read
// live 2.0-2.3 us of processor time here and as much in the server, 4 KiB
// 5.6 us; published to returned by Next, sourcing included, at 500 events/s
// over 64 partitions p50 0.75, p99 1.5 ms; 64 readers with nothing to read
// 0.7 % of a core here, 0.6-0.8 % in the server (reader_timing_test.go). Our
// stream must hold several seconds of traffic: that its oldest events are
// dropped under a reader is noticed exactly only in its older half.
//
// Needed permissions of the NATS user: publish to $JS.API.STREAM.INFO.*,
// $JS.API.STREAM.CREATE.*, $JS.API.STREAM.UPDATE.<events>,
// $JS.API.STREAM.MSG.GET.<events>, $JS.API.DIRECT.GET.<events>,
// $JS.API.CONSUMER.CREATE.<events>.>, $JS.API.CONSUMER.DELETE.<events>.*,
// $JS.API.CONSUMER.MSG.NEXT.<events>.*; subscribe to <inbox prefix>.>.
package natsx
