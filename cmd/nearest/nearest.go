package nearest

import (
	"cmp"
	"slices"
	"strings"
)

// Names gives the n names most like the one that was asked for: what has it in
// it, or is in it, first, then by the number of letters to change. "none at all"
// where there are no names.
func Names(name string, names []string, n int) []string {
	distance := make(map[string]int, len(names))
	for _, s := range names {
		distance[s] = edits(name, s)
		if strings.Contains(s, name) || strings.Contains(name, s) {
			distance[s] -= 1000
		}
	}
	list := slices.Clone(names)
	slices.SortStableFunc(list, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance[a], distance[b]), cmp.Compare(a, b))
	})
	if len(list) == 0 {
		return []string{"none at all"}
	}
	return list[:min(n, len(list))]
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
