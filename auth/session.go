package auth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
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

	seenEvery = time.Minute // how often a use is written down

	rememberedMost = 1000 // sessions that are kept in mind for when the database can't be used
	sweepEvery     = 10 * time.Minute
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
	s := &store{db: o.DB, now: o.Now, secure: o.Secure, name: "dezky-session", last: map[[sha256.Size]byte]db.Session{}}
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

// Session is a person's session, as a request found it.
type Session struct {
	Principal Principal
	id        string // that the cookie holds
	row       db.Session
}

// FromProvider tells whether an identity provider began the session, rather than a one-time link.
func (s *Session) FromProvider() bool { return s.row.Issuer != "" }

// tokens are what the provider gave for a session. They are kept sealed by a key that only the cookie has,
// so that who has the database, or a copy of it, has no token.
type tokens struct {
	ID          string    // for the end of the session at the provider
	Access      string    // for userinfo
	AccessUntil time.Time // when the access token expires
	Groups      bool      // userinfo told the groups, so that their absence later is the loss of them
}

// SignIn begins a session for a principal, always under a new id: one that was fixed before is worthless.
func (ss *Sessions) SignIn(w http.ResponseWriter, r *http.Request, p Principal) error {
	return ss.begin(w, r, p, nil, "")
}

// begin is SignIn; an identity provider's session comes with its tokens and the provider's id of it. A
// session that the same person had goes on, as far as the time is concerned that one may last.
func (ss *Sessions) begin(w http.ResponseWriter, r *http.Request, p Principal, t *tokens, sid string) error {
	before, err := ss.store.New(r, ss.store.name)
	if err != nil {
		return err
	}
	session := sessions.NewSession(ss.store, ss.store.name)
	session.Options = ss.store.options(int(SessionMost / time.Second))
	found := &Session{Principal: p, id: rand.Text() + rand.Text()}
	now := ss.store.now()
	found.row = db.Session{Hash: sha256.Sum256([]byte(found.id)), CreatedAt: now, SeenAt: now, CheckedAt: now, SID: sid}
	if t != nil {
		found.row.Issuer, found.row.Subject = p.Issuer, p.Subject
		if found.row.Sealed, err = seal(found.id, t); err != nil {
			return err
		}
	}
	if old, had := before.Values[sessionKey].(*Session); had {
		if old.FromProvider() && old.row.Issuer == p.Issuer && old.row.Subject == p.Subject {
			found.row.CreatedAt = old.row.CreatedAt
		}
		if err := ss.store.end(r.Context(), old.row.Hash); err != nil {
			return err
		}
	}
	session.Values[sessionKey] = found
	return ss.store.Save(r, w, session)
}

// Find returns the session of a request's cookie, or nil, and notes its use. A cookie that can't be read, or
// whose session has ended, is no session.
func (ss *Sessions) Find(r *http.Request) (*Session, error) {
	found, err := ss.Peek(r)
	if err != nil {
		return nil, err
	}
	if now := ss.store.now(); found != nil && now.Sub(found.row.SeenAt) >= seenEvery {
		found.row.SeenAt = now
		ss.store.note(found.row)
		if err := ss.store.db.TouchSession(r.Context(), found.row.Hash, now); err != nil {
			ss.log.Warn("use of a session not noted", "error", err) // it may end early, and nothing else
		}
	}
	return found, nil
}

// Peek is Find for what is no use of the session by a person, and so does not keep it from ending.
func (ss *Sessions) Peek(r *http.Request) (*Session, error) {
	session, err := ss.store.New(r, ss.store.name)
	if err != nil {
		return nil, err
	}
	found, _ := session.Values[sessionKey].(*Session)
	return found, nil
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

// seal encrypts a session's tokens by a key of its id.
func seal(id string, t *tokens) ([]byte, error) {
	box, err := sealer(id)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return box.Seal(nil, nil, plain, nil), nil
}

// tokens opens what seal closed.
func (s *Session) tokens() (*tokens, error) {
	box, err := sealer(s.id)
	if err != nil {
		return nil, err
	}
	plain, err := box.Open(nil, nil, s.row.Sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("session tokens: %w", err)
	}
	t := &tokens{}
	return t, json.Unmarshal(plain, t)
}

func sealer(id string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(id), nil, "session tokens", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
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

// sessionKey is where a session's values hold our Session.
const sessionKey = "session"

// store keeps sessions in the database. It is a sessions.Store.
type store struct {
	db     *db.DB
	now    func() time.Time
	secure bool
	name   string
	codecs []securecookie.Codec

	mu   sync.Mutex
	last map[[sha256.Size]byte]db.Session // as read last, for when the database can't be used
}

func (s *store) options(maxAge int) *sessions.Options {
	return &sessions.Options{Path: "/", MaxAge: maxAge, Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// row reads a session. Where the database can't be used, what was read last counts.
func (s *store) row(ctx context.Context, hash [sha256.Size]byte) (db.Session, error) {
	row, err := s.db.Session(ctx, hash)
	_, broken := db.Broken(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch last, known := s.last[hash]; {
	case err == nil:
		s.remember(row)
	case broken && known:
		return last, nil
	case errors.Is(err, flags.ErrNotFound):
		delete(s.last, hash)
	}
	return row, err
}

// remember keeps a session in mind; the caller holds mu.
func (s *store) remember(row db.Session) {
	if _, known := s.last[row.Hash]; !known && len(s.last) >= rememberedMost {
		for hash := range s.last { // any one: whose turn it is does not matter
			delete(s.last, hash)
			break
		}
	}
	s.last[row.Hash] = row
}

// note is remember for a session that changed.
func (s *store) note(row db.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(row)
}

// end ends a session, also where the database can't be told.
func (s *store) end(ctx context.Context, hash [sha256.Size]byte) error {
	err := s.db.DeleteSession(ctx, hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, hash)
	return err
}

// endAll ends all sessions that a provider began for someone; see db.DeleteSessionsOf.
func (s *store) endAll(ctx context.Context, issuer, subject, sid string) (int64, error) {
	n, err := s.db.DeleteSessionsOf(ctx, issuer, subject, sid)
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.last)
	return n, err
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
	row, err := s.row(r.Context(), sha256.Sum256([]byte(id)))
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
	found := &Session{id: id, row: row}
	if err := json.Unmarshal([]byte(row.Data), &found.Principal); err != nil {
		return session, fmt.Errorf("session data: %w", err)
	}
	session.ID, session.IsNew, session.Values[sessionKey] = id, false, found
	return session, nil
}

// Save keeps a session and sets its cookie; with a negative MaxAge it ends both.
func (s *store) Save(r *http.Request, w http.ResponseWriter, session *sessions.Session) error {
	if session.Options.MaxAge < 0 {
		http.SetCookie(w, sessions.NewCookie(session.Name(), "", session.Options))
		return s.end(r.Context(), sha256.Sum256([]byte(session.ID)))
	}
	found, ok := session.Values[sessionKey].(*Session)
	if !ok {
		return errors.New("a session of nobody")
	}
	data, err := json.Marshal(found.Principal)
	if err != nil {
		return fmt.Errorf("session data: %w", err)
	}
	found.row.Data = string(data)
	if err := s.db.PutSession(r.Context(), found.row); err != nil {
		return err
	}
	session.ID = found.id
	value, err := securecookie.EncodeMulti(session.Name(), session.ID, s.codecs...)
	if err != nil {
		return fmt.Errorf("session cookie: %w", err)
	}
	http.SetCookie(w, sessions.NewCookie(session.Name(), value, session.Options))
	return nil
}
