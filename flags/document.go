package flags

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
)

// Document is flags, tenants and partners without versions, times and history: what export writes and
// import reads. A list that the document does not have is nil, and says nothing about its kind.
type Document struct {
	Partners []PartnerPatch
	Tenants  []TenantPatch
	Flags    []NewFlag
}

// DecodeDocument reads a document strictly. It returns *Malformed for one that can't be understood; bad
// values wait in each element's Problems.
func DecodeDocument(body []byte) (Document, error) {
	var d Document
	r, v, err := begin(body)
	if err != nil {
		return d, err
	}
	r.fields("", v, map[string]func(string, value){
		"partners": func(path string, v value) { d.Partners = elements(r, path, v, (*reader).partner) },
		"tenants":  func(path string, v value) { d.Tenants = elements(r, path, v, (*reader).tenant) },
		"flags":    func(path string, v value) { d.Flags = elements(r, path, v, (*reader).newFlag) },
	})
	if r.malformed == nil && len(r.problems) > 0 { // a list that is null
		return d, &Invalid{Errors: r.problems}
	}
	return d, r.err()
}

func elements[T any](r *reader, path string, v value, read func(*reader, value) T) []T {
	if !r.is(path, v, "an array") {
		return nil
	}
	out := make([]T, len(v.items))
	for i, item := range v.items {
		one := &reader{base: path + "[" + strconv.Itoa(i) + "]"}
		out[i] = read(one, item)
		if r.malformed == nil {
			r.malformed = one.malformed
		}
	}
	return out
}

// WriteDocument writes the snapshot as a document: one line a thing, sorted, so that two exports compare
// well.
func WriteDocument(w io.Writer, s *Snapshot) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	list := func(name string, n int, item func(i int) any) error {
		b.WriteString(`"` + name + `":[`)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteByte('\n')
			if err := enc.Encode(item(i)); err != nil {
				return err
			}
			b.Truncate(b.Len() - 1) // Encode ends the line; the comma belongs before that
		}
		b.WriteByte(']')
		return nil
	}
	b.WriteByte('{')
	if err := list("partners", len(s.partners), func(i int) any { return s.partners[i] }); err != nil {
		return err
	}
	b.WriteString(",\n")
	err := list("tenants", len(s.tenants), func(i int) any {
		t := s.tenants[i]
		return struct {
			ID          string  `json:"id"`
			Slug        string  `json:"slug"`
			Name        string  `json:"name"`
			Plan        string  `json:"plan"`
			PartnerSlug *string `json:"partnerSlug"`
			Status      string  `json:"status"`
		}{t.ID, t.Slug, t.Name, t.Plan, optional(t.PartnerSlug), t.Status}
	})
	if err != nil {
		return err
	}
	b.WriteString(",\n")
	err = list("flags", len(s.flags), func(i int) any {
		f := s.flags[i]
		return struct {
			Key         string `json:"key"`
			Description string `json:"description"`
			State       State  `json:"state"`
			Pct         int    `json:"pct"`
			Scope       Scope  `json:"scope"`
		}{f.Key, f.Description, f.State, f.Pct, f.Scope}
	})
	if err != nil {
		return err
	}
	b.WriteString("}\n")
	_, err = b.WriteTo(w)
	return err
}
