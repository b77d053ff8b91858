// Package rpc carries batches of events between pods, and acks back.
//
// Each pod opens one gRPC stream to each other pod of the live list and sends
// its batches there; the acks of that peer come back on the same stream. What
// the peer has to send travels on a stream of its own, which this pod serves.
//
// # What a forward promises
//
//  1. Send never waits. It says false when the peer can't take the batch now;
//     the batch is then dropped and counted, the receiver sees a hole and reads
//     it from the events stream itself. So nothing here retries a batch.
//  2. Batches of a partition arrive in the order of Send, each once, within one
//     generation of a stream (Service.Stream). Batches of several partitions
//     may overtake each other.
//  3. A batch that continues one of the same partition and incarnation that
//     still waits is joined with it: the receiver sees one batch of both
//     ranges. Batches without events become marks of a Progress frame. Joining
//     comes from waiting, never from a timer.
//  4. A peer costs at most Options.QueueBytes here, plus gRPC's windows, plus a
//     second's worth of ack times per partition. A batch of a partition whose
//     oldest batch was not acked for Options.AckTimeout is refused, except for
//     one probe per AckTimeout, by which a peer that recovered is found.
//  5. Both sides say Hello first. Protocol version, partition count, stream id
//     and owner must fit; else the peer is refused with a sentence and tried
//     again slowly. A stream ends when the id of the events stream changes, for
//     sequences of another stream mean nothing.
//  6. Bytes of a peer never panic: each is bounded and checked before use
//     (fuzzed). A frame that is wrong ends its stream.
//  7. A stream of mutual TLS ends after Options.StreamAge, by the caller at a
//     moment when nothing waits, else by the called pod; the next one begins at
//     once, with the certificates of then.
//  8. Nothing is plain text unless Options.Creds says so.
//
// # Goroutines
//
// Run has one goroutine a peer (connects, backs off, writes), which has one
// more while its stream is open (reads acks). Serve has gRPC's own, one per
// stream served (writes acks) and one beside it (reads, calls Sink). SetPeers,
// Send and Stream may be called from any goroutine, before Run too.
//
// # Locks
//
// Service.mu (peer set) before peer.mu (queue, ledger) before those of metrics.
// receiver.mu (streams served) is held while Sink is told of a stream's begin
// and end, so that these come in order; Sink may call Send there. None is held
// while anything blocks.
package rpc
