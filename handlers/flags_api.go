package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// recent is how many entries of its history a flag carries.
const recent = 20

// Bounds of ?limit= on a history.
const (
	historyDefault = 50
	historyMost    = 200
)

// memberFlag is a flag without what names other customers: its scope and history.
type memberFlag struct {
	Key         string      `json:"key"`
	Description string      `json:"description"`
	State       flags.State `json:"state"`
	Pct         int         `json:"pct"`
	Version     int64       `json:"version"`
	CreatedAt   time.Time   `json:"createdAt"`
	UpdatedAt   time.Time   `json:"updatedAt"`
}

func forMember(f *flags.Flag) memberFlag {
	return memberFlag{f.Key, f.Description, f.State, f.Pct, f.Version, f.CreatedAt, f.UpdatedAt}
}

func (a *app) listFlags(w http.ResponseWriter, r *http.Request, c call) error {
	q := r.URL.Query()
	text, state := strings.ToLower(q.Get("q")), flags.State(q.Get("state"))
	if state != "" && !slices.Contains(flags.States, state) {
		return badQuery("state", "must be one of off, on, targeted, rollout")
	}
	out := []*flags.Flag{}
	for _, f := range a.db.Current().Flags() {
		if (state == "" || f.State == state) && contains(text, f.Key, f.Description) {
			out = append(out, f)
		}
	}
	if c.principal.Role == auth.Member {
		briefly := make([]memberFlag, len(out))
		for i, f := range out {
			briefly[i] = forMember(f)
		}
		return writeJSON(w, http.StatusOK, briefly)
	}
	return writeJSON(w, http.StatusOK, out)
}

func badQuery(name, message string) error {
	return &flags.Invalid{Errors: []flags.FieldError{{Field: name, Message: message}}}
}

// flagWithHistory is the whole of a flag.
type flagWithHistory struct {
	*flags.Flag
	History []flags.Entry `json:"history"`
}

// whole adds its recent history to a flag.
func (a *app) whole(r *http.Request, f *flags.Flag) (*flagWithHistory, error) {
	entries, err := a.flagEntries(r, db.HistoryFilter{Flag: f.Key, Versions: true, Limit: recent})
	entries = slices.DeleteFunc(entries, func(e flags.Entry) bool { return e.Version > f.Version }) // later than f
	return &flagWithHistory{f, entries}, err
}

// writeFlag answers with the whole of a flag and its ETag.
func (a *app) writeFlag(w http.ResponseWriter, r *http.Request, status int, f *flags.Flag) error {
	whole, err := a.whole(r, f)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", versionTag(f.Version))
	return writeJSON(w, status, whole)
}

// changed passes the error of a change on; one of a failed precondition gets the whole of the flag.
func (a *app) changed(r *http.Request, err error) error {
	var stale *flags.Stale
	if !errors.As(err, &stale) {
		return err
	}
	out := &staleFlag{cause: stale}
	if stale.Current != nil {
		if out.current, err = a.whole(r, stale.Current); err != nil {
			return err
		}
	}
	return out
}

// flagEntries returns entries of one flag, which need not say whose they are.
func (a *app) flagEntries(r *http.Request, filter db.HistoryFilter) ([]flags.Entry, error) {
	entries, err := a.db.History(r.Context(), filter)
	for i := range entries {
		entries[i].Kind, entries[i].Name = "", ""
	}
	return list(entries), err
}

// flag returns the flag in the path.
func (a *app) flag(s *flags.Snapshot, r *http.Request) (*flags.Flag, error) {
	key := r.PathValue("key")
	f := s.Flag(key)
	if f == nil {
		return nil, fmt.Errorf("flag %q: %w", key, flags.ErrNotFound)
	}
	return f, nil
}

func (a *app) getFlag(w http.ResponseWriter, r *http.Request, c call) error {
	f, err := a.flag(a.db.Current(), r)
	if err != nil {
		return err
	}
	if done, err := notModified(w, r, versionTag(f.Version)); done || err != nil {
		return err
	}
	if c.principal.Role == auth.Member {
		return writeJSON(w, http.StatusOK, forMember(f))
	}
	return a.writeFlag(w, r, http.StatusOK, f)
}

func (a *app) createFlag(w http.ResponseWriter, r *http.Request, c call) error {
	n, err := flags.DecodeNewFlag(c.body)
	if err != nil {
		return err
	}
	f, err := a.db.CreateFlag(r.Context(), c.principal.By(), n)
	if err != nil {
		return err
	}
	w.Header().Set("Location", r.URL.Path+"/"+f.Key)
	return a.writeFlag(w, r, http.StatusCreated, f)
}

func (a *app) patchFlag(w http.ResponseWriter, r *http.Request, c call) error {
	p, err := flags.DecodePatch(c.body)
	if err != nil {
		return err
	}
	if p.IfVersion, err = ifMatch(r.Header); err != nil {
		return err
	}
	f, err := a.db.PatchFlag(r.Context(), c.principal.By(), r.PathValue("key"), p)
	if err != nil {
		return a.changed(r, err)
	}
	return a.writeFlag(w, r, http.StatusOK, f)
}

func (a *app) deleteFlag(w http.ResponseWriter, r *http.Request, c call) error {
	versions, err := ifMatch(r.Header)
	if err != nil {
		return err
	}
	if err := a.db.DeleteFlag(r.Context(), c.principal.By(), r.PathValue("key"), "", versions); err != nil {
		return a.changed(r, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *app) restoreFlag(w http.ResponseWriter, r *http.Request, c call) error {
	var restore db.Restore
	var err error
	restore.Version, restore.Note, restore.Problems, err = flags.DecodeRestore(c.body)
	if err != nil {
		return err
	}
	if restore.IfVersion, err = ifMatch(r.Header); err != nil {
		return err
	}
	f, err := a.db.RestoreFlag(r.Context(), c.principal.By(), r.PathValue("key"), restore)
	if err != nil {
		return a.changed(r, err)
	}
	return a.writeFlag(w, r, http.StatusOK, f)
}

func (a *app) flagHistory(w http.ResponseWriter, r *http.Request, _ call) error {
	key := r.PathValue("key")
	ever, err := a.db.EverFlag(r.Context(), key)
	if err != nil {
		return err
	}
	if !ever {
		return fmt.Errorf("flag %q: %w", key, flags.ErrNotFound)
	}
	filter := db.HistoryFilter{Flag: key}
	if err := page(r, &filter); err != nil {
		return err
	}
	entries, err := a.flagEntries(r, filter)
	if err != nil {
		return err
	}
	return writeEntries(w, r, entries, filter.Limit-1)
}

func (a *app) history(w http.ResponseWriter, r *http.Request, _ call) error {
	q := r.URL.Query()
	filter := db.HistoryFilter{Flag: q.Get("flag"), Tenant: q.Get("tenant"), Actor: q.Get("actor")}
	lines, after, err := wantsLines(r)
	if err != nil {
		return err
	}
	if err := page(r, &filter); err != nil {
		return err
	}
	if lines {
		return a.historyLines(w, r, filter, after)
	}
	entries, err := a.db.History(r.Context(), filter)
	if err != nil {
		return err
	}
	return writeEntries(w, r, list(entries), filter.Limit-1)
}

// page reads ?before= and ?limit= into a filter, and asks for one entry more, which tells whether there
// is a next page.
func page(r *http.Request, f *db.HistoryFilter) error {
	var bad flags.Invalid
	f.Limit = number(r, "limit", historyDefault, historyMost, &bad) + 1
	if before := r.URL.Query().Get("before"); before != "" {
		id, err := strconv.ParseInt(before, 10, 64)
		if err != nil || id < 1 {
			bad.Errors = append(bad.Errors, flags.FieldError{Field: "before", Message: "must be the id of an entry"})
		}
		f.Before = id
	}
	if len(bad.Errors) > 0 {
		return &bad
	}
	return nil
}

// number reads a whole number from 1 to most out of the query.
func number(r *http.Request, name string, otherwise, most int, bad *flags.Invalid) int {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		bad.Errors = append(bad.Errors, flags.FieldError{Field: name, Message: fmt.Sprintf("must be a whole number from 1 to %d", most)})
		return otherwise
	}
	return n
}

func writeEntries(w http.ResponseWriter, r *http.Request, entries []flags.Entry, limit int) error {
	if len(entries) > limit {
		entries = entries[:limit]
		linkNext(w, r, "before", strconv.FormatInt(entries[limit-1].ID, 10))
	}
	return writeJSON(w, http.StatusOK, entries)
}

// linkNext points to the next page: the same request from another place on (RFC 8288).
func linkNext(w http.ResponseWriter, r *http.Request, name, value string) {
	q := r.URL.Query()
	q.Set(name, value)
	next := url.URL{Path: r.URL.Path, RawQuery: q.Encode()}
	w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}
