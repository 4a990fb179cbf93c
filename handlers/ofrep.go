package handlers

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// OpenFeature's remote evaluation protocol (OFREP 0.3): every flag for a tenant at once, or one.

// ofrepError is a mistake in the protocol's own form.
type ofrepError struct {
	status  int
	Key     string          `json:"key,omitempty"` // of the flag that was asked for
	Code    flags.ErrorCode `json:"errorCode"`
	Details string          `json:"errorDetails"`
}

func (e *ofrepError) Error() string { return e.Details }

// ofrepAsk is an OFREP request: who is asked about, where, and whether the registry knows them.
type ofrepAsk struct {
	flags.Context
	tenant      *flags.Tenant
	registered  bool
	environment string
	past        *flags.Past // where the context asks of a time
}

// ofrepAsked decodes a request and finds its tenant. For a member every tenant but its own is not there, and
// what the context tells of one does not count.
func (a *app) ofrepAsked(s *flags.Snapshot, r *http.Request, c call) (x ofrepAsk, err error) {
	if x.Context, err = flags.DecodeContext(c.body); err != nil {
		return x, err
	}
	if x.At != nil && !c.principal.May(auth.Read) { // never the present for the past
		return x, &refusal{http.StatusForbidden, "forbidden",
			fmt.Sprintf("context.at asks of the past, which needs the role %s here; yours is %s", auth.Read, c.principal.Role)}
	}
	if x.environment, err = a.inEnvironment(c.principal, x.Environment); err != nil {
		return x, err
	}
	if !s.HasEnvironment(x.environment) {
		unknown := unknownEnvironment(s, x.environment)
		return x, &flags.ContextError{Code: flags.InvalidContext, Message: "context." + unknown.Field + " " + unknown.Message}
	}
	if x.At != nil {
		x.past, err = a.db.AsOf(r.Context(), *x.At, x.TargetingKey)
		if invalid := (*flags.Invalid)(nil); errors.As(err, &invalid) {
			err = &flags.ContextError{Code: flags.InvalidContext, Message: invalid.Prefixed("context").Error()}
		}
		if err == nil {
			x.tenant, x.registered = x.past.Tenant(x.TargetingKey), true
		}
		return x, err
	}
	x.tenant, x.registered = s.TenantOf(&x.Context)
	if !c.principal.Sees(x.tenant) || c.principal.Role == auth.Member && !x.registered {
		return x, noTenant(x.TargetingKey)
	}
	return x, nil
}

// ofrepFailure is an error of a request about a flag, or about all with "", as the protocol wants it.
func ofrepFailure(err error, key string) error {
	var context *flags.ContextError
	switch {
	case errors.As(err, &context):
		return &ofrepError{http.StatusBadRequest, key, context.Code, context.Message}
	case errors.Is(err, flags.ErrNotFound) && key != "":
		return &ofrepError{http.StatusNotFound, key, flags.FlagNotFound, err.Error()}
	case errors.Is(err, flags.ErrNotFound):
		return &ofrepError{http.StatusNotFound, "", flags.InvalidContext, err.Error()}
	}
	return err
}

// ofrepBulk evaluates every flag for one tenant. Of now, it does no SQL and takes no lock.
func (a *app) ofrepBulk(w http.ResponseWriter, r *http.Request, c call) error {
	x := a.answers.now()
	q, err := a.ofrepAsked(x.Snapshot, r, c)
	if err != nil {
		return ofrepFailure(err, "")
	}
	if q.past != nil {
		return a.ofrepBulkThen(w, r, &q)
	}
	now := a.now()
	etag, done := contextTag(x.Snapshot, &q, c.principal.TokenID, a.streams.Window(now)), false
	if newer(r, x.Snapshot) {
		tag(w, etag)
	} else if done, err = notModified(w, r, etag); err != nil {
		return err
	}
	a.answered(w, c, x.Snapshot, now)
	if done {
		return nil
	}
	sheet := (*flags.Sheet)(nil)
	if q.registered {
		sheet = x.Sheet(q.tenant, q.environment)
	} else {
		sheet = x.Fresh(q.tenant, q.environment)
	}
	buffer := buffers.Get().(*[]byte)
	b := append((*buffer)[:0], `{"flags":[`...)
	for i := range x.entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = x.entries[i].append(b, sheet.Outcomes[i], q.registered)
	}
	b = append(b, `],"eventStreams":[{"type":"sse","url":"`...)
	b = append(b, a.streamURL(r, c.principal, q.TargetingKey, now)...)
	b = append(b, `","inactivityDelaySec":120}],"metadata":{"environment":"`...)
	b = append(b, q.environment...) // a known one needs no escaping
	b = append(b, `","revision":`...)
	b = strconv.AppendInt(b, x.Revision(), 10)
	if !q.registered {
		b = append(b, unregistered...)
	}
	*buffer = append(b, "}}\n"...)
	sendJSON(w, buffer)
	return nil
}

// ofrepSingle evaluates one flag for one tenant. Of now, it does no SQL and takes no lock.
func (a *app) ofrepSingle(w http.ResponseWriter, r *http.Request, c call) error {
	x, key := a.answers.now(), r.PathValue("key")
	q, err := a.ofrepAsked(x.Snapshot, r, c)
	if err != nil {
		return ofrepFailure(err, key)
	}
	if q.past != nil {
		return a.ofrepSingleThen(w, &q, key)
	}
	i, ok := x.FlagIndex(key)
	if !ok {
		return noOFREPFlag(key)
	}
	a.answered(w, c, x.Snapshot, a.now())
	buffer := buffers.Get().(*[]byte)
	e := &x.entries[i]
	*buffer = append(e.append((*buffer)[:0], e.flag.Outcome(q.tenant, q.environment), q.registered), '\n')
	w.Header()["Cache-Control"] = noStore
	sendJSON(w, buffer)
	return nil
}

func noOFREPFlag(key string) error {
	return ofrepFailure(fmt.Errorf("flag %q: %w", key, flags.ErrNotFound), key)
}

var noStore = []string{"no-store"}

// newer tells whether a request follows an event of a stream about another state than the one served. It
// then gets the whole answer, never a 304 (OFREP's ADR 8).
func newer(r *http.Request, s *flags.Snapshot) bool {
	if r.URL.RawQuery == "" {
		return false
	}
	query := r.URL.Query()
	if etag := query.Get("flagConfigEtag"); etag != "" && strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) != eventID(s) {
		return true
	}
	modified := query.Get("flagConfigLastModified")
	seconds, err := strconv.ParseInt(modified, 10, 64)
	if at, notDate := time.Parse(time.RFC3339, modified); err != nil && notDate == nil {
		seconds, err = at.Unix(), nil
	}
	return err == nil && seconds > lastModified(s)
}

// contextTag names what a bulk answer of now depends on: the state of everything; the window in which its stream's
// address holds, and the API token with which that ends; the whole context, by a hash, since it may be long;
// and the environment.
func contextTag(s *flags.Snapshot, q *ofrepAsk, token string, window int64) string {
	sum := sha256.Sum256(q.Whole)
	b := make([]byte, 0, 128)
	b = append(b, '"')
	b = append(b, s.Epoch()...)
	b = append(b, '.')
	b = strconv.AppendInt(b, s.Revision(), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, window, 36)
	b = append(b, '.')
	b = append(b, token...)
	b = append(b, '.')
	b = base64.RawURLEncoding.AppendEncode(b, sum[:18])
	b = append(b, '.')
	b = append(b, q.environment...)
	return string(append(b, '"'))
}
