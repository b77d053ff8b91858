//go:build race

package natsx

// slack stretches promised times: everything, servers included, is slower
// under the race detector.
const slack = 10
