package server

import "encoding/json"

// hasField says whether the object at hand has this field at its top level.
// body must be valid JSON: it is scanned once, without a look at what is valid
// or not, and without an allocation unless a key is escaped.
func hasField(body []byte, name string) bool {
	depth, key := 0, true // key: the next string at depth 1 is a key
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			key = key || depth == 1
		case '"':
			end, escaped := stringEnd(body, i)
			if depth == 1 && key {
				if isKey(body[i:end], name, escaped) {
					return true
				}
				key = false
			}
			i = end - 1
		}
	}
	return false
}

// stringEnd is where the string that starts at body[i] is over, and whether it
// holds an escape.
func stringEnd(body []byte, i int) (end int, escaped bool) {
	for i++; i < len(body); i++ {
		switch body[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			return i + 1, escaped
		}
	}
	return len(body), escaped
}

func isKey(quoted []byte, name string, escaped bool) bool {
	if !escaped {
		return len(quoted) == len(name)+2 && string(quoted[1:len(quoted)-1]) == name
	}
	var key string
	return json.Unmarshal(quoted, &key) == nil && key == name
}

// emptyObject says whether a valid object has no field.
func emptyObject(body []byte) bool {
	for _, c := range body[1:] {
		switch c {
		case ' ', '\t', '\r', '\n':
		default:
			return c == '}'
		}
	}
	return true
}
