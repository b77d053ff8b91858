package loop

// noise is what a peer owes for frames that are no message: control frames and
// empty fragments, which cost a poller a hundred times what they cost the peer.
// The upper half is the second of the last one, the lower how many are owed.
type noise uint32

const (
	noiseShift = 16
	noiseOwed  = 1<<noiseShift - 1

	noiseRate = 100            // forgiven a second
	maxNoise  = 20 * noiseRate // may be owed
)

// add counts one; false: there are too many of them.
func (n *noise) add(now uint32) bool {
	second, owed := uint16(now), uint32(*n)&noiseOwed
	owed -= min(owed, noiseRate*uint32(second-uint16(*n>>noiseShift)))
	if owed == maxNoise {
		return false
	}
	*n = noise(uint32(second)<<noiseShift | owed + 1)
	return true
}
