package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Series are metric samples, summed over pods: name with labels -> value.
type Series map[string]float64

// Scraper reads /metrics of the pods' internal ports.
type Scraper struct {
	urls   []string // base URLs
	client *http.Client
}

// NewScraper reads from these base URLs, http://host:port. None: it reads
// nothing.
func NewScraper(urls []string) *Scraper {
	return &Scraper{urls: urls, client: &http.Client{Timeout: 10 * time.Second}}
}

// Close gives idle connections back.
func (s *Scraper) Close() { s.client.CloseIdleConnections() }

// Read sums the series of all pods. Pods that do not answer are an error, but
// what the others said is returned with it.
func (s *Scraper) Read(ctx context.Context) (Series, error) {
	sum := make(Series)
	var failed error
	for _, u := range s.urls {
		if err := s.read(ctx, u, sum); err != nil {
			failed = fmt.Errorf("scrape %s: %w", u, err)
		}
	}
	return sum, failed
}

// ready asks all pods whether they take sessions; nil: they do. One that has its
// metrics, and no peers to wait for, may not yet.
func (s *Scraper) ready(ctx context.Context) error {
	for _, u := range s.urls {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(u, "/")+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := s.client.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s is not ready: %s", u, resp.Status)
		}
	}
	return nil
}

func (s *Scraper) read(ctx context.Context, base string, sum Series) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return parseSeries(resp.Body, sum)
}

// parseSeries adds what the text format says to sum; histogram buckets are left
// out.
func parseSeries(r io.Reader, sum Series) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		// A label's value may hold spaces, so the value starts behind '}'.
		at := strings.LastIndexByte(line, '}') + 1
		sp := strings.IndexAny(line[at:], " \t")
		if sp < 0 {
			continue
		}
		name, rest := line[:at+sp], strings.Fields(line[at+sp:])
		if len(rest) == 0 || strings.Contains(name, "_bucket") {
			continue
		}
		v, err := strconv.ParseFloat(rest[0], 64)
		if err != nil {
			return fmt.Errorf("read value of %s: %w", name, err)
		}
		sum[name] += v
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read metrics: %w", err)
	}
	return nil
}

// Total sums all series of a name, whatever their labels.
func (s Series) Total(name string) (sum float64) {
	for k, v := range s {
		if k == name || strings.HasPrefix(k, name+"{") {
			sum += v
		}
	}
	return sum
}

// Change is a series that differs between two readings.
type Change struct {
	Name   string  `json:"name"`
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// Changes lists what differs, by name.
func (s Series) Changes(after Series) (list []Change) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if after[name] != s[name] {
			list = append(list, Change{name, s[name], after[name]})
		}
	}
	return list
}
