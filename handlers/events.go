package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// namedMost is how many names an event has; a transaction that changed more is told as a resync.
const namedMost = 100

// lately is how long a client may take from its evaluation to its stream: a change in between is told.
const lately = time.Minute

// unknown is a revision that no stream was told of: what comes first is a resync, or a refetch.
const unknown = -1

// changeEvent is what GET /events says of a transaction.
type changeEvent struct {
	Revision int64        `json:"revision"`
	Action   flags.Action `json:"action"`
	Actor    string       `json:"actor"`
	Flags    []string     `json:"flags"`
	Tenants  []string     `json:"tenants"`
}

// revisionEvent is what a customer's person is told of one, and anyone of a resync.
type revisionEvent struct {
	Revision int64 `json:"revision"`
}

// refetchEvent is OFREP's word for a change (ADR-0008).
type refetchEvent struct {
	Type         string `json:"type"`
	ETag         string `json:"etag"`
	LastModified int64  `json:"lastModified,omitzero"` // in Unix seconds
}

// configTag is the validator of the flag configuration: of all that evaluation depends on but the context.
func configTag(s *flags.Snapshot) string { return `"` + eventID(s) + `"` }

// lastModified is when a snapshot came to be, in Unix seconds; 0 where nobody knows.
func lastModified(s *flags.Snapshot) int64 {
	if s.Modified().IsZero() {
		return 0
	}
	return s.Modified().Unix()
}

// streamURL is the address of the stream that tells of changes to a tenant's flags. It stays the same for
// a.streams.Window.
func (a *app) streamURL(r *http.Request, p *auth.Principal, tenant string, now time.Time) string {
	origin := a.publicURL
	if a.byHost && plainHost(r.Host) {
		origin = "http://" + r.Host
	}
	return origin + "/ofrep/v1/stream?credential=" + a.streams.Issue(p, tenant, now)
}

// plainHost tells whether a Host header is one that needs no escaping: a name or address, perhaps with a port.
func plainHost(host string) bool {
	for _, c := range []byte(host) {
		if c != '.' && c != ':' && c != '-' && c != '[' && c != ']' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return host != ""
}

// news renders what streams were not told yet, each part once for all that need it. It is for one goroutine.
type news struct {
	live  *flags.Live
	parts map[partKey]part
}

type partKey struct {
	kind   streamKind
	member bool
	at     int64
}

// part brings a stream from one revision to another.
type part struct {
	text    []byte
	to      int64
	last    bool     // to is the newest
	all     bool     // of OFREP: every tenant is concerned
	tenants []string // of OFREP: else these alone, sorted
}

func newNews(live *flags.Live) *news { return &news{live: live, parts: map[partKey]part{}} }

// next returns what a stream is to be told next, perhaps nothing, the revision that it is at then, and
// whether that is the newest.
func (n *news) next(st *stream) (text []byte, to int64, last bool) {
	if st.at == n.live.Current().Revision() {
		return nil, st.at, true
	}
	key := partKey{st.kind, st.member, st.at}
	p, known := n.parts[key]
	if !known {
		s, events, ok := n.live.Since(st.at)
		if st.kind == ofrepStream {
			p = refetchPart(s, events, ok)
		} else {
			p = eventsPart(s, events, ok, st.member)
		}
		n.parts[key] = p
	}
	if st.kind == ofrepStream && !p.all {
		if _, named := slices.BinarySearch(p.tenants, st.tenant); !named {
			return nil, p.to, p.last
		}
	}
	return p.text, p.to, p.last
}

// message is one event of a stream.
func message(name, id string, data any) []byte {
	var b bytes.Buffer
	if name != "" {
		b.WriteString("event: " + name + "\n")
	}
	b.WriteString("id: " + id + "\ndata: ")
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil { // which ends the line
		panic(err) // our own types encode
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// refetchPart is one event for all that happened, where it can change what evaluation says: a partner's
// name can't.
func refetchPart(s *flags.Snapshot, events []flags.Event, ok bool) part {
	p := part{to: s.Revision(), last: true, all: !ok}
	for _, e := range events {
		p.all = p.all || len(e.Flags) > 0
		p.tenants = append(p.tenants, e.Tenants...)
	}
	slices.Sort(p.tenants)
	p.text = message("", eventID(s), refetchEvent{"refetchEvaluation", configTag(s), lastModified(s)})
	return p
}

// eventsPart is an event for each transaction, as many as one part may have.
func eventsPart(s *flags.Snapshot, events []flags.Event, ok, member bool) part {
	if !ok {
		return part{to: s.Revision(), last: true, text: message("resync", eventID(s), revisionEvent{s.Revision()})}
	}
	p := part{to: s.Revision()}
	for _, e := range events {
		one := eventMessage(s.Epoch(), e, member)
		if len(p.text) > 0 && len(p.text)+len(one) > partMost {
			return p
		}
		p.text, p.to = append(p.text, one...), e.Revision
	}
	p.last = true
	return p
}

func eventMessage(epoch string, e flags.Event, member bool) []byte {
	id := idOf(epoch, e.Revision)
	sorted := func(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }
	named := changeEvent{e.Revision, e.Action, e.Actor, list(sorted(e.Flags)), list(sorted(e.Tenants))}
	switch {
	case len(named.Flags)+len(named.Tenants)+len(sorted(e.Partners)) > namedMost:
		return message("resync", id, revisionEvent{e.Revision})
	case member:
		return message("", id, revisionEvent{e.Revision})
	}
	return message("", id, named)
}

// streamEvents tells of every transaction, by the rules of GET /events.
func (a *app) streamEvents(w http.ResponseWriter, r *http.Request, c call) error {
	p := c.principal
	st := &stream{kind: eventStream, member: p.Role == auth.Member, token: p.TokenID, until: p.Until}
	if r.Header["Authorization"] == nil && r.Header["X-Api-Key"] == nil {
		return a.follow(w, r, st, func() bool { return !a.signedOut(r) })
	}
	return a.follow(w, r, st, nil)
}

// streamChanges tells a client of OFREP when to evaluate again. Its URL carries its credential, and no other
// one counts.
func (a *app) streamChanges(w http.ResponseWriter, r *http.Request, _ call) error {
	credential := r.URL.Query().Get("credential")
	if credential == "" {
		return auth.ErrNoCredentials
	}
	grant, err := a.streams.Open(credential, a.now())
	if err == nil && grant.TokenID != "" {
		err = a.tokens.Check(r.Context(), grant.TokenID)
	}
	if err != nil {
		return a.countFailure(w.(*recorder), r, err)
	}
	st := &stream{kind: ofrepStream, tenant: grant.Tenant, token: grant.TokenID, until: grant.Until}
	return a.follow(w, r, st, nil)
}

// follow opens a stream where its reader left off. A stream by session, which is asked for in the database,
// says by check whether it may go on, and is served here; so are those over HTTP/2, whose connection is
// others' too. The rest is the hub's.
func (a *app) follow(w http.ResponseWriter, r *http.Request, st *stream, check func() bool) error {
	s := a.db.Current()
	st.at = s.Revision()
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		if at, ok := revisionOf(s, last); ok {
			st.at = at
		} else {
			st.at = unknown
		}
	} else if st.kind == ofrepStream && a.now().Sub(s.Modified()) < lately {
		st.at = unknown
	}
	if r.Method == http.MethodHead {
		streamHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if !a.hub.admit(st.kind) {
		return &unavailable{fmt.Sprintf("%d event streams are open, and that is the most", a.hub.most)}
	}
	w.(*recorder).quiet = true
	if check != nil {
		return a.serveStream(w, r, st, check)
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if errors.Is(err, http.ErrNotSupported) {
		return a.serveStream(w, r, st, func() bool { return a.stillGood(st) })
	}
	if err != nil {
		a.hub.leave(st.kind)
		return fmt.Errorf("stream: %w", err)
	}
	if err := begin(w.(*recorder), st, conn); err != nil {
		conn.Close()
		a.hub.leave(st.kind)
		a.server.opts.Log.Warn("stream not begun", "error", err.Error()) // nobody can be answered any more
		return nil
	}
	a.hub.give(st)
	return nil
}

// begin writes the head of an answer that ends with its connection.
func begin(rec *recorder, st *stream, conn net.Conn) error {
	rec.status = http.StatusOK
	var ok bool
	if st.conn, ok = conn.(*net.TCPConn); !ok {
		return fmt.Errorf("a %T can't be written to without waiting", conn)
	}
	h := rec.Header()
	streamHeader(h)
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Connection", "close")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	h.Write(&head)
	head.WriteString("\r\n")
	head.Write(opening)
	rec.bytes = int64(len(opening))
	var err error
	st.raw, err = st.conn.SyscallConn()
	err = errors.Join(err, st.conn.SetWriteBuffer(streamBuffer), st.conn.SetWriteDeadline(time.Now().Add(slowFor)))
	if err != nil {
		return err
	}
	if _, err := st.conn.Write(head.Bytes()); err != nil {
		return err
	}
	return st.conn.SetWriteDeadline(time.Time{})
}

// serveStream serves a stream in its own goroutine.
func (a *app) serveStream(w http.ResponseWriter, r *http.Request, st *stream, good func() bool) error {
	defer a.hub.leave(st.kind)
	wake, end := a.db.Live().Subscribe()
	defer end()
	send, err := openStream(w)
	if err != nil {
		return err
	}
	pings := time.NewTicker(a.server.pings)
	defer pings.Stop()
	text := opening
	for {
		for n, last := newNews(a.db.Live()), false; ; text, st.at, last = n.next(st) {
			if len(text) > 0 && (!good() || send(text) != nil) {
				return nil
			}
			if text = nil; last {
				break
			}
		}
		select {
		case <-wake:
		case <-pings.C:
			text = ping
		case <-r.Context().Done():
			return nil
		case <-a.quit:
			return nil
		}
	}
}
