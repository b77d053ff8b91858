// Package embedded is a Redis inside the process, for development: one pod,
// everything lost at exit, about 5,000 scripts a second.
package embedded
