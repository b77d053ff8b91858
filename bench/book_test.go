package bench

import (
	"fmt"
	"sync"
	"testing"
)

// Who shows the run looks at the book while its pages are still made.
func TestBookIsReadWhileMade(t *testing.T) {
	b := NewBook(1)
	var readers sync.WaitGroup
	made := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-made:
					return
				default:
				}
				if n := b.Published() + b.Unsure(); n != 0 {
					t.Errorf("%d events before the first", n)
				}
			}
		})
	}
	for i := range 2000 {
		b.Page("acme", fmt.Sprintf("agent%d", i))
	}
	close(made)
	readers.Wait()
	if n := len(b.Pages()); n != 2000 || b.page(1999) == nil || b.page(2000) != nil {
		t.Errorf("%d pages", n)
	}
}
