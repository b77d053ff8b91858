// Package loop holds very many WebSocket connections on few goroutines: sockets,
// TLS records, RFC 6455 frames and epoll, and nothing about who is connected.
// An idle connection costs its Conn and nbio's; queue and reader state exist
// only while there is something in them.
//
// # Goroutines
//
//	poller   (nbio, Options.Pollers)    reads; calls Handler.Message
//	worker   (Options.Flushers)         the only writer of the sockets of its shards
//	sweeper  (one)                      pings, dead sockets, deadlines, Handler.Tick
//	closer   (nbio, while sockets end)  calls Handler.Closed
//	caller   of Adopt or Dial           writes the first bytes, feeds early ones, then leaves
//
// No goroutine, timer or channel belongs to a connection.
//
// # Invariants
//
//  1. After adoption only the worker of a Conn's shard writes frames, so frames
//     of one lane arrive in the order they were queued. Control overtakes
//     events, never inside a frame, and nothing follows the close frame.
//  2. A socket with unsent bytes inside nbio is not written again before
//     OnWrittenSize says that they are gone.
//  3. Closed is called once for every Conn that was adopted, that Adopt or Dial
//     failed on, or that was abandoned: after it left the table.
//  4. Event copies: made = written + queued + discarded, whenever the shard is
//     unlocked. Ledger reads all shards at one moment.
//  5. What was lent (Message's payload) is not kept; what is immutable (Frame)
//     is shared.
//  6. Reader state of a Conn is touched by its poller alone; by Adopt's caller
//     before the descriptor reaches the poller.
//  7. A descriptor that the poller watches is closed by the poller. Whoever else
//     wants the socket gone shuts it down (socket.go says why).
//
// # Lock order
//
//	nbio.Conn.mux -> shard.mu; Wire.mu -> nbio.Conn.mux
//
// shard.mu is a leaf: nothing is called under it. Handler's methods run without
// any lock of ours, so they may call every method of a Conn.
//
// # What nbio does not promise
//
// It can't be told to read no more of a socket, so mute.go tells epoll. Writev
// loses data, so frames are joined. Write closes the socket where it fails, so
// it is only given what the kernel had no room for. Almost all of nbio is
// norace: state that it reads is set before the descriptor is added.
// A panic in a callback would end the process, so each is recovered, counted,
// and costs that one socket. Engine.Stop before the pollers run hangs, so Run
// lets them start.
package loop
