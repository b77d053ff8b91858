//go:build !race

package natsx

// slack stretches promised times for a machine that does other things, too.
const slack = 2
