// Package redisx keeps sessions, routes and the list of live pods in Redis: it
// is the only place that knows a key, a script or a Redis error.
//
// # Promises
//
//   - Every script can be called again: an error means that the outcome is
//     unknown. Nothing here turns an unknown outcome into "not yours".
//   - Calls of one partition reach Redis in the order they were made, also
//     across a failed pipeline: everything of the partition from the first
//     unanswered call on is sent again, in order, before anything newer.
//   - An edge that was given up late (its connection broke, yet Redis reads it
//     from a buffer afterwards) can't undo a newer edge: edges are numbered.
//   - A look-up's owners, fences and incarnation are read by one script.
//   - Scripts only touch keys of one partition, which is one slot of a cluster,
//     and only masters are asked.
//
// # What is lost when Redis is lost
//
// Nothing that pods can't write again. Lost keys take the incarnation inc:{pN}
// with them, every script compares it, so the loss is seen before a look-up
// can be mistaken for "nobody wants it". A master that was replaced (another
// master_replid) may have lost the last writes but not the incarnation: then
// this package makes a new one, before any other call uses the connection.
//
// # Goroutines, all of Run
//
//	lane        one pipeline in flight; its queue is the only buffer
//	beat        live list, each 500 ms
//	subscriber  kill:<owner>: kills and answers
//	publisher   the same channels, other direction
//	watch       master_replid each second, maxmemory-policy each minute
//
// Callbacks come from these goroutines, hold no lock and must not block. Lock
// order: a lane's lock and the kill table's are leaves.
package redisx
