package handlers

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// then finds the moment that a question names, with its tenant and environment. A member's are the tenants that
// are its own now: of a slug that was another customer's then, it learns no more than that its own was not there.
func (a *app) then(r *http.Request, c call, q flags.Question) (p *flags.Past, t *flags.Tenant, environment string, err error) {
	if environment, err = a.inEnvironment(c.principal, q.Environment); err != nil {
		return nil, nil, "", err
	}
	now := a.db.Current()
	own := now.Tenant(q.TenantSlug)
	if c.principal.Role == auth.Member && (own == nil || !c.principal.Sees(own)) {
		return nil, nil, "", noTenant(q.TenantSlug)
	}
	var unknown []flags.FieldError
	if !now.HasEnvironment(environment) {
		unknown = append(unknown, unknownEnvironment(now, environment))
	}
	p, err = a.db.AsOf(r.Context(), *q.At, q.TenantSlug)
	if invalid := (*flags.Invalid)(nil); errors.As(err, &invalid) {
		err = &flags.Invalid{Errors: append(unknown, invalid.Errors...)}
	}
	if err != nil {
		return nil, nil, "", err
	}
	t = p.Tenant(q.TenantSlug)
	if c.principal.Role == auth.Member && t.ID != own.ID {
		return nil, nil, "", flags.NoTenantAt(q.TenantSlug, p.At)
	}
	if unknown != nil {
		return nil, nil, "", &flags.Invalid{Errors: unknown}
	}
	return p, t, environment, nil
}

// evaluateThen is evaluate as of a time. Which revision has come to the one who asks it does not tell, and so it is
// not noted.
func (a *app) evaluateThen(w http.ResponseWriter, r *http.Request, c call, q flags.Question) error {
	p, t, environment, err := a.then(r, c, q)
	if err != nil {
		return err
	}
	done, err := notModified(w, r, pastTag(p, t, environment))
	if err == nil {
		a.countEvaluation(w)
	}
	if done || err != nil {
		return err
	}
	out := make(map[string]bool, len(p.Flags()))
	for _, f := range p.Flags() {
		out[f.Key] = f.Evaluate(t, environment)
	}
	return writeJSON(w, http.StatusOK, out)
}

func (a *app) explainThen(w http.ResponseWriter, r *http.Request, c call, q flags.Question) error {
	p, t, environment, err := a.then(r, c, q)
	if err != nil {
		return err
	}
	return writeExplanations(w, p.Snapshot, t, environment)
}

// pastTag names what an answer about the past depends on. A log entry that is yet to come may count at the same
// time, so it is not the time but the last entry that counts; no tag of now has an @.
func pastTag(p *flags.Past, t *flags.Tenant, environment string) string {
	return `"` + p.Epoch() + ".@" + strconv.FormatInt(p.Entry, 10) + "." + t.ID + "." + environment + `"`
}

// ofrepBulkThen is ofrepBulk as of a time. It names no stream: no event changes the past.
func (a *app) ofrepBulkThen(w http.ResponseWriter, r *http.Request, q *ofrepAsk) error {
	sum := sha256.Sum256(q.Whole)
	etag := pastTag(q.past, q.tenant, base64.RawURLEncoding.EncodeToString(sum[:18])+"."+q.environment)
	done, err := notModified(w, r, etag)
	if err == nil {
		a.countEvaluation(w)
	}
	if done || err != nil {
		return err
	}
	buffer := buffers.Get().(*[]byte)
	b := append((*buffer)[:0], `{"flags":[`...)
	for i, f := range q.past.Flags() {
		if i > 0 {
			b = append(b, ',')
		}
		e := newEntry(f)
		b = e.append(b, f.Outcome(q.tenant, q.environment), true)
	}
	b = append(b, `],"metadata":{"environment":"`...)
	b = append(b, q.environment...) // a known one needs no escaping
	b = append(b, `","revision":`...)
	b = strconv.AppendInt(b, q.past.Revision(), 10)
	b = append(b, `,"at":"`...)
	b = q.past.At.AppendFormat(b, time.RFC3339Nano)
	*buffer = append(b, "\"}}\n"...)
	sendJSON(w, buffer)
	return nil
}

func (a *app) ofrepSingleThen(w http.ResponseWriter, q *ofrepAsk, key string) error {
	f := q.past.Flag(key)
	if f == nil {
		return noOFREPFlag(key)
	}
	a.countEvaluation(w)
	e := newEntry(f)
	buffer := buffers.Get().(*[]byte)
	*buffer = append(e.append((*buffer)[:0], f.Outcome(q.tenant, q.environment), true), '\n')
	w.Header()["Cache-Control"] = noStore
	sendJSON(w, buffer)
	return nil
}
