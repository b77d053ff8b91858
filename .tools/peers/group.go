package main

import "sync"

// groups holds the sockets of each path.
type groups[T comparable] struct {
	mu   sync.RWMutex
	list map[string][]T
}

func (g *groups[T]) add(path string, c T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.list == nil {
		g.list = make(map[string][]T)
	}
	g.list[path] = append(g.list[path], c)
}

func (g *groups[T]) remove(path string, c T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.list[path]
	for i := range list {
		if list[i] == c {
			list[i] = list[len(list)-1]
			g.list[path] = list[:len(list)-1]
			break
		}
	}
	if len(g.list[path]) == 0 {
		delete(g.list, path)
	}
}

// each calls f for every socket of the path and counts those that took it.
func (g *groups[T]) each(path string, f func(T) error) (n int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, c := range g.list[path] {
		// A socket that failed ends in its own reading loop.
		if f(c) == nil {
			n++
		}
	}
	return n
}
