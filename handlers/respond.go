package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// problem is an error answer (RFC 9457), with what particular problems add.
type problem struct {
	Type    string             `json:"type"`
	Title   string             `json:"title"`
	Status  int                `json:"status"`
	Detail  string             `json:"detail"`
	Errors  []flags.FieldError `json:"errors,omitempty"`  // 422: every bad field
	More    int                `json:"more,omitempty"`    // 422: how many mistakes there are beside those in errors
	Current any                `json:"current,omitempty"` // 412: the flag as it is, null if there is none
	Flags   []string           `json:"flags,omitempty"`   // 409: keys of flags in the way
	Tenants []string           `json:"tenants,omitempty"` // 409: slugs of tenants in the way
	Freeze  *flags.Freeze      `json:"freeze,omitempty"`  // 423: what is in the way, and until when
	Version int64              `json:"version,omitempty"` // 503: the flag's, which stands here and is not in the replica
	ID      string             `json:"id,omitempty"`      // 500: what to search the log for

	// On OFREP's routes the same in its own words.
	Key          string          `json:"key,omitempty"`
	ErrorCode    flags.ErrorCode `json:"errorCode,omitempty"`
	ErrorDetails string          `json:"errorDetails,omitempty"`
}

// problemType names a kind of problem; the documentation lists them.
func problemType(name string) string { return "urn:dezky:problem:" + name }

// refusal is an error that has its status already.
type refusal struct {
	status int
	name   string
	detail string
}

func (e *refusal) Error() string { return e.detail }

// staleFlag is a flags.Stale with the whole of the flag, as a client needs it to decide again.
type staleFlag struct {
	cause   error
	current *flagWithHistory // nil when the flag does not exist
}

func (e *staleFlag) Error() string { return e.cause.Error() }

// unavailable is a 503 that will pass.
type unavailable struct{ reason string }

func (e *unavailable) Error() string { return e.reason }

// tooMany is a failed attempt from an address that had too many of them.
type tooMany struct{ wait time.Duration }

func (e *tooMany) Error() string {
	return fmt.Sprintf("too many failed credentials came from this address; wait %s. A good one is taken at any time", retryAfter(e.wait)+" s")
}

// retryAfter is a duration in the whole seconds of Retry-After.
func retryAfter(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

// freezeEnds is when a change that a freeze refused is worth another try, as Retry-After.
func (s *Server) freezeEnds(f *flags.Frozen) string {
	return retryAfter(max(time.Second, f.Until.Sub(s.app.Load().now())))
}

// fail answers with an error. This is the table from errors to statuses; what is not in it is a 500,
// which is logged and tells the client only an id.
func (s *Server) fail(rec *recorder, r *http.Request, err error) {
	var (
		malformed *flags.Malformed
		invalid   *flags.Invalid
		stale     *staleFlag
		conflict  *flags.Conflict
		frozen    *flags.Frozen
		refused   *refusal
		away      *unavailable
		many      *tooMany
		alone     *db.NotReplicated
		protocol  *ofrepError
	)
	if errors.As(err, &protocol) {
		rec.Header().Set("Cache-Control", "no-store")
		writeJSON(rec, protocol.status, protocol)
		return
	}
	p := problem{Detail: err.Error()}
	reason, broken := db.Broken(err)
	kind := ""
	switch {
	case errors.As(err, &malformed):
		p.Status, kind = http.StatusBadRequest, "bad-request"
	case errors.As(err, &many):
		p.Status, kind = http.StatusTooManyRequests, "too-many-requests"
		rec.Header().Set("Retry-After", retryAfter(many.wait))
	case errors.Is(err, auth.ErrProviderAway):
		p.Status, kind, p.Detail = http.StatusServiceUnavailable, "unavailable", "the identity provider can't be asked about this credential now"
		rec.Header().Set("Retry-After", "5")
		rec.cause = err.Error()
	case errors.Is(err, auth.ErrNoCredentials), errors.Is(err, auth.ErrSignInAgain):
		p.Status, kind = http.StatusUnauthorized, "unauthorized"
		rec.Header().Set("WWW-Authenticate", "Bearer")
	case errors.Is(err, auth.ErrToken), errors.Is(err, auth.ErrCredentials):
		p.Status, kind = http.StatusUnauthorized, "unauthorized"
		rec.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	case errors.As(err, &refused):
		p.Status, kind = refused.status, refused.name
	case errors.Is(err, flags.ErrNotFound):
		p.Status, kind = http.StatusNotFound, "not-found"
	case errors.As(err, &conflict):
		p.Status, kind = http.StatusConflict, "conflict"
		p.Flags, p.Tenants = conflict.Flags, conflict.Tenants
	case errors.As(err, &frozen):
		p.Status, kind, p.Freeze = http.StatusLocked, "frozen", &frozen.Freeze
		rec.Header().Set("Retry-After", s.freezeEnds(frozen))
	case errors.As(err, &stale):
		p.Status, kind = http.StatusPreconditionFailed, "precondition-failed"
		p.Current = stale.current // a nil pointer becomes null
	case errors.As(err, &invalid):
		p.Status, kind = http.StatusUnprocessableEntity, "invalid"
		p.Detail, p.Errors = "some fields have values that are not allowed", invalid.Errors
		p.More = invalid.More
	case errors.As(err, &away):
		p.Status, kind = http.StatusServiceUnavailable, "unavailable"
		rec.Header().Set("Retry-After", "1")
	case errors.As(err, &alone):
		p.Status, kind, p.Version = http.StatusServiceUnavailable, "not-replicated", alone.Version
		rec.Header().Set("Retry-After", "5")
	case broken:
		p.Status, kind, p.Detail = http.StatusServiceUnavailable, "unavailable", unusable(reason)
		rec.Header().Set("Retry-After", "10")
		s.opts.Log.Error("database unusable", "id", rec.id, "error", err.Error())
	case r.Context().Err() != nil && errors.Is(err, context.Canceled):
		rec.status = 499 // the client has gone; nobody reads an answer
		return
	default:
		p.Status, kind = http.StatusInternalServerError, "internal"
		p.Detail, p.ID = "something went wrong here; the log knows it by this id", rec.id
		if err != errPanic { // a panic is logged with its stack
			s.opts.Log.Error("request failed", "id", rec.id, "error", err.Error())
		}
	}
	if p.Status == http.StatusUnauthorized { // one body for every cause
		p.Detail = "this needs a valid bearer token or API key"
	}
	p.Type, p.Title = problemType(kind), http.StatusText(p.Status)
	if rec.status != 0 {
		return // the answer has begun; it can only be cut short
	}
	if strings.Contains(r.Pattern, " /ofrep/") || strings.Contains(r.Pattern, " /api/ofrep/") {
		p.Key, p.ErrorCode, p.ErrorDetails = r.PathValue("key"), flags.GeneralError, p.Detail
	}
	rec.Header().Del("ETag") // of the answer that this is not
	rec.Header().Set("Cache-Control", "no-store")
	writeJSONAs(rec, p.Status, "application/problem+json", p)
}

// writeJSON answers with a value.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	writeJSONAs(w, status, "application/json", v)
	return nil
}

func writeJSONAs(w http.ResponseWriter, status int, mediaType string, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // our own types encode
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// list is never null in JSON.
func list[T any](xs []T) []T {
	if xs == nil {
		return []T{}
	}
	return xs
}
