// Package local measures on this machine: it starts servers of its own and runs
// scenarios of package bench against them, one after the other, so that what is
// compared was measured in one run by the same clients.
//
//   - Peers: the gateway beside bare servers of other WebSocket libraries.
//   - Tune: the gateway with one setting after the other.
//   - Doctor: starts nothing; is this machine fit for a run?
//
// Every process it starts ends with the function that started it. Goroutines:
// one for each process, which waits for its end.
package local
