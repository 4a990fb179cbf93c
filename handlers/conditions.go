package handlers

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/flags"
)

// entityTags parses If-Match or If-None-Match (RFC 9110, 8.8.3 and 13.1): every tag with its quotes, and
// its W/ where it is weak. A malformed field is a bad request.
func entityTags(h http.Header, name string) (tags []string, wild bool, err error) {
	field := strings.Join(h.Values(name), ",")
	for rest := field; ; {
		rest = strings.TrimLeft(rest, " \t,")
		if rest == "" {
			return tags, wild, nil
		}
		if rest[0] == '*' {
			wild, rest = true, rest[1:]
		} else {
			start := 0
			if strings.HasPrefix(rest, "W/") {
				start = 2
			}
			end := -1
			if start < len(rest) && rest[start] == '"' {
				end = strings.IndexByte(rest[start+1:], '"')
			}
			if end < 0 {
				return nil, false, badTags(name)
			}
			end += start + 2
			tags, rest = append(tags, rest[:end]), rest[end:]
		}
		if rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != ',' {
			return nil, false, badTags(name)
		}
	}
}

func badTags(name string) error {
	return &refusal{http.StatusBadRequest, "bad-request", name + ` must be a list of entity tags, each in double quotes, or *`}
}

// ifMatch returns the versions at one of which a flag must be, or nil where any will do. Weak tags, and
// tags that are no version, never match.
func ifMatch(h http.Header) ([]int64, error) {
	if len(h.Values("If-Match")) == 0 {
		return nil, nil
	}
	tags, anyVersion, err := entityTags(h, "If-Match")
	if err != nil {
		return nil, err
	}
	versions := []int64{}
	for _, tag := range tags {
		version, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
		if err == nil && version > 0 && tag == versionTag(version) { // 0 would be flags.AnyVersion
			versions = append(versions, version)
		}
	}
	if anyVersion {
		return append(versions, flags.AnyVersion), nil
	}
	return versions, nil
}

func versionTag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// notModified sets ETag and Cache-Control, and tells whether If-None-Match (weak comparison) has the tag
// already; then the answer is 304 and written.
func notModified(w http.ResponseWriter, r *http.Request, etag string) (bool, error) {
	has, err := hasTag(r.Header, etag)
	if err != nil {
		return false, err
	}
	tag(w, etag)
	if has {
		w.WriteHeader(http.StatusNotModified)
	}
	return has, nil
}

// tag sets ETag and Cache-Control, of a 304 too (RFC 9110, 15.4.5).
func tag(w http.ResponseWriter, etag string) {
	h := w.Header()
	h["Etag"] = []string{etag}
	h["Cache-Control"] = privateNoCache
}

var privateNoCache = []string{"private, no-cache"}

// hasTag tells whether If-None-Match names the tag or any.
func hasTag(h http.Header, etag string) (bool, error) {
	switch given := h["If-None-Match"]; {
	case len(given) == 0:
		return false, nil
	case len(given) == 1 && given[0] == etag:
		return true, nil
	}
	tags, anyTag, err := entityTags(h, "If-None-Match")
	for _, tag := range tags {
		anyTag = anyTag || strings.TrimPrefix(tag, "W/") == etag
	}
	return anyTag, err
}
