package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// flagGone says that a flag was deleted meanwhile.
func (a *app) flagGone(w http.ResponseWriter, r *http.Request, v visit) error {
	if !fromHtmx(r) {
		return fmt.Errorf("flag %q: %w", r.PathValue("key"), flags.ErrNotFound)
	}
	toast := templates.Toast{Icon: "warn", Alert: true, Strong: r.PathValue("key") + " was deleted.", Text: "What you see is how it was; nothing was saved."}
	return a.swaps(w, http.StatusNotFound, templates.Swaps{Parts: []templates.Part{{Target: "#toasts", Swap: "beforeend", View: toast}}})
}

// newFlag is the dialog that makes a flag, over the list or as a page.
func (a *app) newFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	d := templates.NewFlag{Key: r.URL.Query().Get("key")}
	if wantsFragment(r) {
		return a.html(w, http.StatusOK, d)
	}
	d.Page = true
	return a.flagsPage(w, http.StatusOK, v, templates.FlagsPage{List: a.list(v, a.filterOf(url.Values{}, v), ""), Dialog: &d}, "New flag")
}

// makeFlag creates a flag, which starts off for everyone, and opens it.
func (a *app) makeFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	d := templates.NewFlag{Key: strings.TrimSpace(r.PostFormValue("key")), Description: strings.ReplaceAll(r.PostFormValue("description"), "\r\n", "\n")}
	n := flags.NewFlag{Key: d.Key, Patch: flags.Patch{Description: &d.Description}}
	if message := flags.CheckKey(n.Key); message != "" {
		n.Problems = append(n.Problems, flags.FieldError{Field: "key", Message: message})
	}
	f, err := a.db.CreateFlag(r.Context(), v.principal.By(), n)
	var invalid *flags.Invalid
	var conflict *flags.Conflict
	switch {
	case errors.As(err, &invalid):
		for _, e := range invalid.Errors {
			if e.Field == "key" {
				d.KeyError = sentence(e.Message)
			} else {
				d.DescriptionError = sentence(e.Message)
			}
		}
	case errors.As(err, &conflict):
		d.KeyError, d.Exists = n.Key+" already exists.", true
	case err != nil:
		return err
	}
	if d.KeyError+d.DescriptionError != "" {
		if fromHtmx(r) {
			return a.html(w, http.StatusUnprocessableEntity, d)
		}
		d.Page = true
		return a.flagsPage(w, http.StatusUnprocessableEntity, v, templates.FlagsPage{List: a.list(v, a.filterOf(url.Values{}, v), ""), Dialog: &d}, "New flag")
	}
	if !fromHtmx(r) {
		http.Redirect(w, r, "/operator/flags/"+f.Key, http.StatusSeeOther)
		return nil
	}
	v.snapshot = a.db.Current()
	if !strings.HasPrefix(currentPath(r), "/operator/flags") { // no list to put it in: go there
		w.Header().Set("HX-Redirect", "/operator/flags/"+f.Key)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	query := a.listBehind(r, v).Filter.Query
	w.Header().Set("HX-Push-Url", "/operator/flags/"+f.Key+query)
	p, err := a.panel(r, v, f, panelState{focus: "title", query: query})
	if err != nil {
		return err
	}
	parts := append([]templates.Part{
		{Target: "#dialogs", Swap: "innerHTML"},
		{Target: "#panel", Swap: "innerHTML", View: *p},
		{Target: "#toasts", Swap: "beforeend", View: templates.Toast{Icon: "plus", Strong: f.Key + " is created.", Text: "It is off for everyone."}},
	}, a.newRow(r, v, f)...)
	return a.swaps(w, http.StatusOK, templates.Swaps{Title: f.Key, Parts: parts})
}

// askDelete asks before a flag is deleted.
func (a *app) askDelete(w http.ResponseWriter, r *http.Request, v visit) error {
	f, err := a.flag(v.snapshot, r)
	if err != nil {
		return err
	}
	filter := a.filterOf(r.URL.Query(), v)
	d := templates.Delete{Key: f.Key, Version: f.Version, Query: filter.Query}
	if wantsFragment(r) {
		return a.html(w, http.StatusOK, d)
	}
	d.Page = true
	p, err := a.panel(r, v, f, panelState{query: filter.Query})
	if err != nil {
		return err
	}
	return a.flagsPage(w, http.StatusOK, v, templates.FlagsPage{List: a.list(v, filter, f.Key), Panel: p, Ask: d}, f.Key)
}

// removeFlag deletes a flag that is off.
func (a *app) removeFlag(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	f, err := a.flag(v.snapshot, r)
	if err != nil {
		return a.flagGone(w, r, v)
	}
	if f.State != flags.Off {
		return &refusal{http.StatusConflict, "conflict", f.Key + " is not off; turn it off before it is deleted"}
	}
	version, err := strconv.ParseInt(r.PostFormValue("version"), 10, 64)
	if err != nil {
		return &refusal{http.StatusUnprocessableEntity, "invalid", "the version is missing"}
	}
	err = a.db.DeleteFlag(r.Context(), v.principal.By(), f.Key, "", []int64{version})
	var stale *flags.Stale
	if errors.As(err, &stale) {
		return &refusal{http.StatusConflict, "conflict", f.Key + " was changed meanwhile; look at it again before it is deleted"}
	}
	if err != nil {
		return err
	}
	query := a.filterOf(queryOf(r.PostFormValue("q_query")), v).Query
	if !fromHtmx(r) {
		http.Redirect(w, r, "/operator/flags"+query, http.StatusSeeOther)
		return nil
	}
	v.snapshot = a.db.Current()
	w.Header().Set("HX-Push-Url", "/operator/flags"+query)
	parts := append([]templates.Part{
		{Target: "#panel", Swap: "innerHTML"},
		{Target: "#flag-" + f.Key, Swap: "delete"},
		{Target: "#dialogs", Swap: "innerHTML"},
		{Target: "#toasts", Swap: "beforeend", View: templates.Toast{Icon: "trash", Strong: f.Key + " is deleted.", Restore: f.Key, Version: f.Version}},
		{Target: "#list-count", Swap: "textContent", Text: plural(a.listBehind(r, v).Matches, "flag")},
	}, a.countParts(v)...)
	return a.swaps(w, http.StatusOK, templates.Swaps{Title: "Flags", Parts: parts})
}

// bringBack restores a deleted flag.
func (a *app) bringBack(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	key := r.PathValue("key")
	if v.snapshot.Flag(key) != nil {
		return &refusal{http.StatusConflict, "conflict", key + " is not deleted"}
	}
	version, err := strconv.ParseInt(r.PostFormValue("version"), 10, 64)
	if err != nil { // as it was last
		entries, err := a.flagEntries(r, db.HistoryFilter{Flag: key, Versions: true, Limit: 1})
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return a.flagGone(w, r, v)
		}
		version = entries[0].Version - 1
	}
	f, err := a.db.RestoreFlag(r.Context(), v.principal.By(), key, db.Restore{Version: version, Note: "brought back"})
	if err != nil {
		return err
	}
	if !fromHtmx(r) || !strings.HasPrefix(currentPath(r), "/operator/flags") {
		w.Header().Set("HX-Redirect", "/operator/flags/"+key)
		if !fromHtmx(r) {
			http.Redirect(w, r, "/operator/flags/"+key, http.StatusSeeOther)
		} else {
			w.WriteHeader(http.StatusNoContent)
		}
		return nil
	}
	v.snapshot = a.db.Current()
	query := a.listBehind(r, v).Filter.Query
	w.Header().Set("HX-Push-Url", "/operator/flags/"+key+query)
	parts := append([]templates.Part{
		{Target: "#flag-" + key, Swap: "delete"}, // dimmed since the deletion, in the list of another person
		{Target: "#toasts", Swap: "beforeend", View: templates.Toast{Icon: "undo", Strong: key + " is back.", Text: "It is as it was."}},
	}, a.newRow(r, v, f)...)
	return a.showPanel(w, r, v, f, panelState{focus: "title", query: query}, http.StatusOK, parts...)
}
