package bench

import (
	"sync"

	"github.com/daisi/daisi-ws/session"
)

// Book is what the publisher published in one run: the only source of expected
// values. Its pages are made before the first event; entries are added by Feed.
type Book struct {
	Run  uint64 // marks the run's events, so that others' are told apart
	base uint32 // index of the first page: other parts of the run have others

	mu    sync.RWMutex
	pages []*Page // whoever shows the run may read while they are made
}

// partShift leaves room for a million pages in each of 4,096 parts.
const partShift = 20

// NewBook returns an empty book for the run with this mark.
func NewBook(run uint64) *Book { return &Book{Run: run} }

// Pages lists all pages, in the order they were made.
func (b *Book) Pages() []*Page {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.pages[:len(b.pages):len(b.pages)]
}

// page is the page with this index, nil if there is none.
func (b *Book) page(i uint32) *Page {
	pages := b.Pages()
	if i < b.base || int(i-b.base) >= len(pages) {
		return nil
	}
	return pages[i-b.base]
}

// Topic is what an event of a page is about: the rest of its subject.
type Topic struct {
	Kind string // session.KindChats and so on
	Chat string // only with session.KindMessages
}

// Page is the list of one (company, agent): its topics and, in the order they
// were published, its events.
type Page struct {
	// Static after Book.Page.
	Company, Agent string
	Topics         []Topic
	index          uint32
	all            []bool // by topic: for every session of the agent
	size           int    // bytes of a body; 0: the Feed's

	mu      sync.RWMutex
	entries []entry
	topicN  []uint32 // events of each topic so far
}

// entry is one published event: its topic, and whether its storing is unsure.
type entry uint32

const unsure entry = 1 << 31

func (e entry) topic() uint16 { return uint16(e) }
func (e entry) sure() bool    { return e&unsure == 0 }

// Page makes a page with topic 0 = chats and one messages topic for each chat.
// One goroutine makes them, before the first event.
func (b *Book) Page(company, agent string, chats ...string) *Page {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &Page{Company: company, Agent: agent, index: b.base + uint32(len(b.pages)), Topics: []Topic{{Kind: session.KindChats}}}
	for _, c := range chats {
		p.Topics = append(p.Topics, Topic{Kind: session.KindMessages, Chat: c})
	}
	p.topicN = make([]uint32, len(p.Topics))
	for _, t := range p.Topics {
		p.all = append(p.all, t.Kind != session.KindMessages)
	}
	b.pages = append(b.pages, p)
	return p
}

// Len is how many events were published on the page.
func (p *Page) Len() uint32 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return uint32(len(p.entries))
}

// Subject is where events of this topic are published, below prefix.
func (p *Page) Subject(prefix string, topic uint16) string {
	t := p.Topics[topic]
	s := prefix + "." + p.Company + "." + p.Agent + "." + t.Kind
	if t.Chat != "" {
		s += "." + t.Chat
	}
	return s
}

// add enters one event: its number on the page and within its topic, from 0.
func (p *Page) add(topic uint16) (n, k uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, k = uint32(len(p.entries)), p.topicN[topic]
	p.entries = append(p.entries, entry(topic))
	p.topicN[topic]++
	return n, k
}

// doubt marks an event whose storing was not confirmed.
func (p *Page) doubt(n uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entries[n] |= unsure
}

// Unsure counts the events of the whole book whose storing is unsure.
func (b *Book) Unsure() (n int64) {
	for _, p := range b.Pages() {
		p.mu.RLock()
		for _, e := range p.entries {
			if !e.sure() {
				n++
			}
		}
		p.mu.RUnlock()
	}
	return n
}

// Published counts the events of the whole book.
func (b *Book) Published() (n int64) {
	for _, p := range b.Pages() {
		n += int64(p.Len())
	}
	return n
}
