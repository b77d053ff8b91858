// Package server is the gateway: the only package that knows all the others,
// the edge that clients meet, and the delivery of events.
//
// # Parts
//
// Gateway (gateway.go, run.go, component.go) wires, starts leaf first, stops
// edge first. The edge (http.go, upgrade.go, handler.go, wire.go, admission.go,
// admin.go) turns requests into sessions. Delivery is two halves, on one pod or
// on two: dispatch (dispatch.go) reads a partition that this pod believes to
// own and sends batches; partition (partition.go, delivery.go) takes them.
//
// # Invariants
//
//  1. Events reach sockets through delivery.deliver alone: live batches,
//     repairs and replays go through it (protocols, P1).
//  2. Only the worker of a partition delivers live events of it and moves its
//     watermark, which never falls within a stream id (P2).
//  3. A batch is delivered if the gate is open, its stream and incarnation are
//     those the gate stands for, and it continues the watermark. Anything else
//     is repaired from the stream or dropped: a dropped batch leaves a hole that
//     the next one shows, or silence, which is repaired too.
//  4. Look-ups and fences are read after the events they are for, never cached
//     (P4).
//  5. Nobody waits for a partition's worker with a lock held; the reader of a
//     partition waits for nobody it sends to, this pod included.
//
// # Goroutines
//
// A worker a partition; a reader a partition owned; the accept loop, a login
// each while it lasts; what loop, redisx, natsx and rpc run. None per session.
// Gateway.Run waits for all of them, but no longer than a stop may take: what
// hangs beyond that ends with its own time-outs. A panic in one ends that component, which
// is started again with backoff and counted.
//
// # Lock order
//
// partition.mu before an index shard; index shard before loop's locks. Redis
// and NATS are never awaited under a lock.
package server
