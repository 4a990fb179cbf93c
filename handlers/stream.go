package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// pingEvery is how often a quiet stream says that it lives.
const pingEvery = 15 * time.Second

// eventID names a snapshot in a stream: its epoch and revision.
func eventID(s *flags.Snapshot) string {
	return idOf(s.Epoch(), s.Revision())
}

func idOf(epoch string, revision int64) string { return epoch + "-" + strconv.FormatInt(revision, 10) }

// revisionOf reads an event id; it is not ok for one of another epoch.
func revisionOf(s *flags.Snapshot, id string) (int64, bool) {
	epoch, text, found := strings.Cut(id, "-")
	if !found || epoch != s.Epoch() {
		return 0, false
	}
	revision, err := strconv.ParseInt(text, 10, 64)
	return revision, err == nil
}

// events is the console's own stream: for each change the rows that differ, for every list that shows
// them, and an event that names the flag, for an open panel. A slow reader misses states, never the latest.
func (a *app) events(w http.ResponseWriter, r *http.Request, v visit) error {
	w.(*recorder).quiet = true
	a.hub.open[consoleStream].Add(1)
	defer a.hub.leave(consoleStream)
	wake, end := a.db.Live().Subscribe()
	defer end()
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = r.URL.Query().Get("since")
	}
	at, known := revisionOf(v.snapshot, last)
	write, err := openStream(w)
	if err != nil {
		return err
	}
	send := func(text string) error { return write([]byte(text)) }
	if !known && last != "" {
		at = v.snapshot.Revision()
		if err := send("event: resync\ndata: {}\nid: " + eventID(v.snapshot) + "\n\n"); err != nil {
			return nil // the reader has gone
		}
	} else if !known {
		at = v.snapshot.Revision()
	}
	if err := send("event: ping\ndata: {}\n\n"); err != nil {
		return nil
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	alarmed := false // the page may be from before
	frozen := a.db.Current().Frozen(a.now())
	tell := at != v.snapshot.Revision() || !known && (last != "" || frozen != nil)
	for {
		if alarm := a.alarm(); (alarm != "") != alarmed { // told when it begins and ends, not each time it grows
			alarmed = !alarmed
			message, err := alarmMessage(alarm)
			if err != nil {
				return err
			}
			if err := send(message); err != nil {
				return nil
			}
		}
		if now := a.db.Current().Frozen(a.now()); tell || now != frozen {
			frozen, tell = now, false
			message, err := a.freezeMessage(v, frozen)
			if err != nil {
				return err
			}
			if err := send(message); err != nil {
				return nil
			}
		}
		s, events, ok := a.db.Live().Since(at)
		text := ""
		switch {
		case !ok:
			text = "event: resync\ndata: {}\nid: " + eventID(s) + "\n\n"
		case len(events) > 0:
			var err error
			if text, err = a.changes(s, v, events); err != nil {
				return err
			}
		}
		at = s.Revision()
		if text != "" {
			if err := send(text); err != nil {
				return nil
			}
		}
		quiet := false
		select {
		case <-wake:
		case <-ping.C:
			quiet = true
		case <-r.Context().Done():
			return nil
		case <-a.quit:
			return nil
		}
		// Once the session has ended nothing more is told: the reader learns it as it asks again.
		if a.signedOut(r) {
			return nil
		}
		if quiet {
			if err := send("event: ping\ndata: {}\n\n"); err != nil {
				return nil
			}
		}
	}
}

// signedOut tells whether the session of a stream's request has ended, or can't be asked about.
func (a *app) signedOut(r *http.Request) bool {
	p, err := a.person(r, auth.Look, a.sessions.Peek)
	return err == nil && p == nil || errors.Is(err, auth.ErrSignInAgain) || errors.Is(err, auth.ErrProviderAway)
}

// streamHeader says that events follow.
func streamHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy must not hold events back
}

// openStream begins an answer that has no end, and returns what sends a part of it: an error says that the
// reader has gone, or takes too long.
func openStream(w http.ResponseWriter) (send func([]byte) error, err error) {
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	streamHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	return func(text []byte) error {
		if err := control.SetWriteDeadline(time.Now().Add(slowFor)); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		return control.Flush()
	}, nil
}

// manyChanged is from how many changed flags on a list is better asked anew.
const manyChanged = 100

// changes writes the events up to a snapshot as one message of rows and one event for each flag.
func (a *app) changes(s *flags.Snapshot, v visit, events []flags.Event) (string, error) {
	actors := map[string]flags.Event{}
	registry := false
	for _, e := range events {
		registry = registry || len(e.Tenants)+len(e.Partners) > 0
		for _, key := range e.Flags {
			actors[key] = e
		}
	}
	id := "id: " + eventID(s) + "\n\n"
	if registry || len(actors) > manyChanged { // every row's reach may differ
		return "event: resync\ndata: {}\n" + id, nil
	}
	keys := make([]string, 0, len(actors))
	for key := range actors {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	env := slices.Index(s.Environments(), v.env)
	var swaps templates.Swaps
	named := ""
	for _, key := range keys {
		f, e := s.Flag(key), actors[key]
		message := struct {
			Key     string `json:"key"`
			Version int64  `json:"version"`
			Actor   string `json:"actor"`
			At      string `json:"at"`
			Deleted bool   `json:"deleted,omitempty"`
			Created bool   `json:"created,omitempty"`
		}{Key: key, Actor: e.Actor, At: e.At.UTC().Format(time.RFC3339), Deleted: f == nil}
		if f != nil {
			message.Version, message.Created = f.Version, e.Action == flags.Created
			row := a.row(s, f, env)
			row.Flash = []string{"flash-a", "flash-b"}[f.Version%2]
			swaps.Parts = append(swaps.Parts, templates.Part{Target: "#flag-" + key, Swap: "outerMorph", View: row})
		}
		data, err := json.Marshal(message)
		if err != nil {
			return "", err
		}
		named += "event: flag\ndata: " + string(data) + "\n" + id
	}
	v.snapshot = s
	swaps.Parts = append(swaps.Parts, a.countParts(v)...)
	message, err := inStream(swaps)
	return message + id + named, err
}

// inStream writes fragments as the data of one message, which the caller ends.
func inStream(swaps templates.Swaps) (string, error) {
	var html bytes.Buffer
	if err := templates.RenderSwaps(&html, swaps); err != nil {
		return "", err
	}
	message := ""
	for line := range strings.Lines(html.String()) {
		message += "data: " + strings.TrimRight(line, "\r\n") + "\n"
	}
	return message, nil
}

// alarmMessage puts an alarm into an open page, or takes it away.
func alarmMessage(text string) (string, error) {
	message, err := inStream(templates.Swaps{Parts: []templates.Part{{Target: "#alarm", Swap: "outerHTML", View: templates.Alarm{Text: text}}}})
	return message + "\n", err
}
