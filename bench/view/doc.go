// Package view shows what package bench found to people: a report as one HTML
// file without anything from the network, a run as it goes in a terminal, two
// sets of runs beside each other with a verdict that knows noise.
//
// It judges nothing of a run: what a report says is decided in bench. Nothing
// here starts a goroutine.
package view
