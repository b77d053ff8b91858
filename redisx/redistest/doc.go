// Package redistest runs real redis-server processes for tests: a single
// server, a cluster, or a master with a replica under Sentinel.
//
// Every process listens on a free port of 127.0.0.1, keeps its data in
// t.TempDir, and is killed when the test ends (and by the kernel when the test
// binary dies). Data survives Kill through an append-only file, for
// acknowledged writes have reached the kernel before they were answered. There
// is no fallback: a machine without redis-server fails the test and says what
// to do, because a test that skips what it was written for proves nothing.
package redistest
