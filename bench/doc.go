// Package bench loads a gateway over its public doors and NATS, and proves
// that what arrived was right. One engine, one oracle: every figure and every
// "nothing was lost" of this project is printed by it.
//
// # What is measured, and what is not
//
//   - Latency runs from the instant an event (or a login) was DUE by the
//     schedule to the instant its frame was handled here; beside it stands the
//     raw one, from the instant it was sent. A stall of the server therefore
//     costs every event that was due during it, not just one.
//   - Server CPU is utime+stime of the given processes over the measured
//     window, divided by logins or deliveries; it holds the work of the kernel
//     done in their name, loopback receive included.
//   - Kernel memory is machine-wide (slab and socket buffers): on one machine it
//     holds both ends of each connection, and the report says so.
//   - When this process was itself the bottleneck (its CPU, its own scheduling
//     lag, its feed behind schedule without NATS holding it) the result is void;
//     of a run that judges no time only the times are.
//
// # Invariants
//
//  1. Expected values come only from the Book, which the Feed writes before it
//     publishes. Nothing the server says adds to or takes from them.
//
//  2. An event that may or may not have been stored (no ack) is "unsure": its
//     absence is no loss, its presence no surprise. Unsure events are counted.
//
//  3. What a socket owes starts with its `ready` (or the barrier after its
//     select_chat): earlier numbers are optional, later ones are owed.
//
//  4. A socket that closed was told: what it had not been given yet is counted
//     as told. A hole before something it was given is a loss all the same.
//
//  5. Two sockets are read by different goroutines, so what the server did in
//     order can be handled here out of order. Where the order of two sockets
//     is judged (takeover), one poller and a sentinel socket restore it.
//
//  6. Frames of other runs are ignored and counted as foreign.
//
//  7. A run may be borne by many processes (a crew). Agents are dealt out among
//     them, so each judges what it published itself, by its own clock; counts and
//     histograms are then summed, and nothing is lost in it. All meet at the
//     begin and the end of each phase. A worker that is not heard of is named in
//     the report, which is then an error.
//
// # Goroutines and locks
//
// No goroutine per socket: callbacks come from the pollers of loop.Engine. A
// login occupies one of a bounded number of workers until its `ready`. Feed has
// one publishing goroutine (the caller's), Sampler and Watchdog one each; Run
// starts them and returns when all have ended. A guide and a worker of a crew
// have one more each, for signs of life; a Crowd has its login workers; a Local
// cluster and Spawned workers one for each process.
//
// Lock order: client.mu -> User.mu -> Watch.mu -> Page.mu -> Oracle.mu;
// User.mu -> sentinel.mu. Book.mu, Fleet.mu, Crowd.mu, desk.mu, guide.mu and histogram locks are leaves.
//
// # Adding a scenario
//
// Most are scripts: a list of Steps (named.go, or YAML). Else a struct with its
// options, a Name, a Run(ctx, *Stage) that goes through Stage.Phase, Figures over
// the phases' sums, a function that hands it to Run (see fanout.go), a line in
// catalog.go for crews, and one in the table of cmd/daisi-bench.
package bench
