package loop

// queue is what waits for one socket. A Conn has one only while something
// waits; empty ones are kept by the shard.
type queue struct {
	control []*Frame
	events  []*Frame
	nextC   int    // first of control that was not taken
	nextE   int    // first of events that was not taken
	last    *Frame // close frame: goes when nothing else is left
}

// keepFrames is the capacity of a lane above which it is not kept.
const keepFrames = 512

func (q *queue) empty() bool {
	return q.nextC == len(q.control) && q.nextE == len(q.events) && q.last == nil
}

func (q *queue) push(f *Frame) {
	if f.lane == Control {
		q.control = append(q.control, f)
	} else {
		q.events = append(q.events, f)
	}
}

// peek is the frame that goes next; q is not empty.
func (q *queue) peek() *Frame {
	switch {
	case q.nextC < len(q.control):
		return q.control[q.nextC]
	case q.nextE < len(q.events):
		return q.events[q.nextE]
	default:
		return q.last
	}
}

// pop takes the frame that peek showed.
func (q *queue) pop() {
	switch {
	case q.nextC < len(q.control):
		q.control[q.nextC] = nil
		q.nextC++
	case q.nextE < len(q.events):
		q.events[q.nextE] = nil
		q.nextE++
	default:
		q.last = nil
	}
}

// append moves all of later behind what is in q.
func (q *queue) append(later *queue) {
	q.control = append(q.control, later.control[later.nextC:]...)
	q.events = append(q.events, later.events[later.nextE:]...)
	q.last = later.last
	later.reset()
}

// shrink gives the room of frames that were taken to those that come, once they
// are the half of a lane. A socket that is never quite empty, for it reads as
// fast as it is given, would have a lane of all that it was ever given.
func (q *queue) shrink() {
	q.control, q.nextC = untaken(q.control, q.nextC)
	q.events, q.nextE = untaken(q.events, q.nextE)
}

// untaken moves the frames from next on to the front where they are no more than
// those before, so that each frame is moved once on average.
func untaken(lane []*Frame, next int) ([]*Frame, int) {
	if next < len(lane)-next {
		return lane, next
	}
	n := copy(lane, lane[next:])
	clear(lane[n:])
	return lane[:n], 0
}

// dropEvents takes the event lane out; it returns bytes and event copies.
func (q *queue) dropEvents() (bytes, events int) {
	for i := q.nextE; i < len(q.events); i++ {
		f := q.events[i]
		q.events[i] = nil
		bytes += len(f.bytes)
		events += int(f.events)
	}
	q.events, q.nextE = q.events[:0], 0
	return bytes, events
}

// drop empties q.
func (q *queue) drop() (bytes, events int) {
	for !q.empty() {
		f := q.peek()
		q.pop()
		bytes += len(f.bytes)
		events += int(f.events)
	}
	return bytes, events
}

// reset makes q fit for the next socket.
func (q *queue) reset() {
	clear(q.control)
	clear(q.events)
	q.control, q.nextC = keep(q.control), 0
	q.events, q.nextE = keep(q.events), 0
	q.last = nil
}

func keep(s []*Frame) []*Frame {
	if cap(s) > keepFrames {
		return nil
	}
	return s[:0]
}
