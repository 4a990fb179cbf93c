package auth

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// How long a session lasts: without use, and at most.
const (
	SessionIdle = 30 * time.Minute
	SessionMost = 8 * time.Hour

	seenEvery  = time.Minute // how often a use is written down
	sweepEvery = 10 * time.Minute
)

// SessionKeySize is the size of a session key in bytes.
const SessionKeySize = 32

// Sessions signs people in and knows them again. The cookie holds a random id, signed and encrypted; the
// database its SHA-256 with who it is.
type Sessions struct {
	store *store
	log   *slog.Logger
}

// SessionOptions is what Sessions needs.
type SessionOptions struct {
	DB     *db.DB
	Keys   [][]byte // each of SessionKeySize; the first makes new cookies, all open them
	Secure bool     // the public URL is https
	Now    func() time.Time
	Log    *slog.Logger
}

// NewSessions returns the sessions of a database.
func NewSessions(o SessionOptions) (*Sessions, error) {
	s := &store{db: o.DB, now: o.Now, secure: o.Secure, name: "dezky-session"}
	if o.Secure {
		s.name = "__Host-" + s.name // the browser then insists on Secure, no Domain and Path=/
	}
	for _, key := range o.Keys {
		if len(key) != SessionKeySize {
			return nil, fmt.Errorf("a session key has %d bytes, not %d", len(key), SessionKeySize)
		}
		sign, err := hkdf.Key(sha256.New, key, nil, "session cookie signature", 32)
		if err != nil {
			return nil, err
		}
		encrypt, err := hkdf.Key(sha256.New, key, nil, "session cookie encryption", 32)
		if err != nil {
			return nil, err
		}
		codec := securecookie.New(sign, encrypt)
		codec.MaxAge(int(SessionMost / time.Second))
		codec.SetSerializer(securecookie.JSONEncoder{})
		s.codecs = append(s.codecs, codec)
	}
	if len(s.codecs) == 0 {
		return nil, errors.New("no session key")
	}
	return &Sessions{store: s, log: o.Log}, nil
}

// SignIn begins a session for a principal, always under a new id: one that was fixed before is worthless.
func (ss *Sessions) SignIn(w http.ResponseWriter, r *http.Request, p Principal) error {
	if err := ss.SignOut(w, r); err != nil {
		return err
	}
	session := sessions.NewSession(ss.store, ss.store.name)
	session.Options = ss.store.options(int(SessionMost / time.Second))
	session.Values[principalKey] = p
	return ss.store.Save(r, w, session)
}

// Principal returns who a request's session cookie belongs to, or nil. A cookie that can't be read, or
// whose session has ended, is no session.
func (ss *Sessions) Principal(r *http.Request) (*Principal, error) {
	session, err := ss.store.New(r, ss.store.name)
	if err != nil {
		return nil, err
	}
	p, signedIn := session.Values[principalKey].(Principal)
	if !signedIn {
		return nil, nil
	}
	return &p, nil
}

// SignOut ends the request's session, if it has one, and takes the cookie back.
func (ss *Sessions) SignOut(w http.ResponseWriter, r *http.Request) error {
	session, err := ss.store.New(r, ss.store.name)
	if err != nil || session.IsNew {
		return err
	}
	session.Options = ss.store.options(-1)
	return ss.store.Save(r, w, session)
}

// Run removes ended sessions now and then, until ctx ends.
func (ss *Sessions) Run(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			now := ss.store.now()
			if err := ss.store.db.DeleteOldSessions(ctx, now.Add(-SessionIdle), now.Add(-SessionMost)); err != nil && ctx.Err() == nil {
				ss.log.Error("ended sessions not removed", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// principalKey is where a session's values hold the Principal.
const principalKey = "principal"

// store keeps sessions in the database. It is a sessions.Store.
type store struct {
	db     *db.DB
	now    func() time.Time
	secure bool
	name   string
	codecs []securecookie.Codec
}

func (s *store) options(maxAge int) *sessions.Options {
	return &sessions.Options{Path: "/", MaxAge: maxAge, Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// Get returns the request's session, the same one each time it is asked.
func (s *store) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

// New reads the request's session. It is new, and without an error, where there is none.
func (s *store) New(r *http.Request, name string) (*sessions.Session, error) {
	session := sessions.NewSession(s, name)
	session.IsNew = true
	cookie, err := r.Cookie(name)
	if err != nil {
		return session, nil
	}
	var id string
	if securecookie.DecodeMulti(name, cookie.Value, &id, s.codecs...) != nil || id == "" {
		return session, nil
	}
	row, err := s.db.Session(r.Context(), sha256.Sum256([]byte(id)))
	if errors.Is(err, flags.ErrNotFound) {
		return session, nil
	}
	if err != nil {
		return session, err
	}
	now := s.now()
	if now.Sub(row.SeenAt) >= SessionIdle || now.Sub(row.CreatedAt) >= SessionMost {
		return session, nil
	}
	var p Principal
	if err := json.Unmarshal([]byte(row.Data), &p); err != nil {
		return session, fmt.Errorf("session data: %w", err)
	}
	session.ID, session.IsNew, session.Values[principalKey] = id, false, p
	if now.Sub(row.SeenAt) >= seenEvery {
		row.SeenAt = now
		if err := s.db.PutSession(r.Context(), row); err != nil {
			return session, err
		}
	}
	return session, nil
}

// Save keeps a session and sets its cookie; with a negative MaxAge it ends both.
func (s *store) Save(r *http.Request, w http.ResponseWriter, session *sessions.Session) error {
	if session.Options.MaxAge < 0 {
		http.SetCookie(w, sessions.NewCookie(session.Name(), "", session.Options))
		return s.db.DeleteSession(r.Context(), sha256.Sum256([]byte(session.ID)))
	}
	if session.ID == "" {
		session.ID = rand.Text() + rand.Text()
	}
	data, err := json.Marshal(session.Values[principalKey])
	if err != nil {
		return fmt.Errorf("session data: %w", err)
	}
	now := s.now()
	if err := s.db.PutSession(r.Context(), db.Session{Hash: sha256.Sum256([]byte(session.ID)), Data: string(data), CreatedAt: now, SeenAt: now}); err != nil {
		return err
	}
	value, err := securecookie.EncodeMulti(session.Name(), session.ID, s.codecs...)
	if err != nil {
		return fmt.Errorf("session cookie: %w", err)
	}
	http.SetCookie(w, sessions.NewCookie(session.Name(), value, session.Options))
	return nil
}
