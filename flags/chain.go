package flags

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// chainDomain begins what is hashed, so that no hash of anything else is taken for an entry's.
const chainDomain = "dezky log entry 1"

// Line is an entry of the log as it is hashed and exported: every column as it is kept, and the hashes. Its
// JSON is documented in docs/history.md: what is hashed must not change.
type Line struct {
	ID       int64   `json:"id"`
	At       string  `json:"at"` // RFC 3339 in UTC, with milliseconds: LineTime
	Revision int64   `json:"revision"`
	Actor    string  `json:"actor"`
	Kind     Kind    `json:"kind"`
	Name     string  `json:"name"`
	Action   Action  `json:"action"`
	Version  *int64  `json:"version"` // nil where it makes none
	Note     string  `json:"note"`
	Changes  string  `json:"changes"` // JSON, byte by byte as it is kept
	Impact   *string `json:"impact"`  // the same; nil where there is none
	Via      Via     `json:"via"`
	Subject  string  `json:"subject"`
	Issuer   string  `json:"issuer"`
	Client   string  `json:"client"`
	Previous string  `json:"previous"` // hash of the entry before in hex, "" of the first
	Hash     string  `json:"hash"`     // in hex
}

// LineTime is a time in Unix milliseconds as a Line has it.
func LineTime(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }

// Sum is the hash that the entry should have: the SHA-256 of a fixed text, the hash of the entry before and
// every column in the order of the fields, each as its length in bytes, a colon and its text; an absent one
// is a hyphen. So no two entries are the same bytes.
func (l *Line) Sum() [sha256.Size]byte {
	b := make([]byte, 0, 512+len(l.Changes))
	text := func(s string) {
		b = strconv.AppendInt(b, int64(len(s)), 10)
		b = append(b, ':')
		b = append(b, s...)
	}
	text(chainDomain)
	text(l.Previous)
	text(strconv.FormatInt(l.ID, 10))
	text(l.At)
	text(strconv.FormatInt(l.Revision, 10))
	text(l.Actor)
	text(string(l.Kind))
	text(l.Name)
	text(string(l.Action))
	if l.Version == nil {
		b = append(b, '-')
	} else {
		text(strconv.FormatInt(*l.Version, 10))
	}
	text(l.Note)
	text(l.Changes)
	if l.Impact == nil {
		b = append(b, '-')
	} else {
		text(*l.Impact)
	}
	text(string(l.Via))
	text(l.Subject)
	text(l.Issuer)
	text(l.Client)
	return sha256.Sum256(b)
}

// Size is how many bytes of text the entry has.
func (l *Line) Size() int64 {
	n := len(l.Actor) + len(l.Kind) + len(l.Name) + len(l.Action) + len(l.Note) + len(l.Changes) + len(l.Via) + len(l.Subject) + len(l.Issuer) + len(l.Client)
	if l.Impact != nil {
		n += len(*l.Impact)
	}
	return int64(n)
}

// Whole tells whether the entry has the hash that it should have.
func (l *Line) Whole() bool {
	sum := l.Sum()
	return l.Hash == hex.EncodeToString(sum[:])
}
