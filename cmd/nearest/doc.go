// Package nearest finds what somebody meant who misspelt a name.
package nearest
