package handlers

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/flags"
)

// namedImpact is how many tenants an impact names of each list unless all are asked for.
const namedImpact = 100

// inEnvironment settles the environment of a request: the one it names, else the credential's, else the
// default. A credential for one environment is refused in another.
func (a *app) inEnvironment(p *auth.Principal, named string) (string, error) {
	switch {
	case named == "" && p.Environment != "":
		return p.Environment, nil
	case named == "":
		return a.environment, nil
	case p.Environment != "" && named != p.Environment:
		return "", &refusal{http.StatusForbidden, "forbidden",
			fmt.Sprintf("this credential is for the environment %s alone", p.Environment)}
	}
	return named, nil
}

func unknownEnvironment(s *flags.Snapshot, name string) flags.FieldError {
	return flags.FieldError{Field: "environment",
		Message: fmt.Sprintf("must be a known environment (%s), not %q", strings.Join(s.Environments(), ", "), name)}
}

// asked finds the tenant and the environment of a question about now in the snapshot.
func (a *app) asked(s *flags.Snapshot, c call, q flags.Question) (t *flags.Tenant, environment string, err error) {
	if environment, err = a.inEnvironment(c.principal, q.Environment); err != nil {
		return nil, "", err
	}
	t = s.Tenant(q.TenantSlug)
	if t == nil || !c.principal.Sees(t) { // to a member, another's tenant is not there
		return nil, "", noTenant(q.TenantSlug)
	}
	if !s.HasEnvironment(environment) {
		return nil, "", &flags.Invalid{Errors: []flags.FieldError{unknownEnvironment(s, environment)}}
	}
	return t, environment, nil
}

// buffers are for answers and bodies.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// bufferMost is the largest buffer that is kept for others, in bytes.
const bufferMost = 256 << 10

func giveBack(buffer *[]byte) {
	if cap(*buffer) <= bufferMost {
		buffers.Put(buffer)
	}
}

// evaluate answers with every flag's value for one tenant. Of now, it does no SQL and takes no lock.
func (a *app) evaluate(w http.ResponseWriter, r *http.Request, c call) error {
	q, err := flags.DecodeQuestion(c.body)
	if err != nil {
		return err
	}
	if q.At != nil {
		return a.evaluateThen(w, r, c, q)
	}
	x := a.answers.now()
	t, environment, err := a.asked(x.Snapshot, c, q)
	if err != nil {
		return err
	}
	done, err := notModified(w, r, answerTag(x.Snapshot, t, environment))
	if err == nil {
		a.answered(w, c, x.Snapshot, a.now())
	}
	if done || err != nil {
		return err
	}
	buffer := buffers.Get().(*[]byte)
	*buffer = x.appendValues((*buffer)[:0], x.Sheet(t, environment))
	sendJSON(w, buffer)
	return nil
}

// answered counts an evaluation of now that is answered, unchanged or not.
func (a *app) answered(w http.ResponseWriter, c call, s *flags.Snapshot, now time.Time) {
	a.consumers.note(c.principal, s.Revision(), now)
	a.countEvaluation(w)
}

// countEvaluation counts an evaluation of any time.
func (a *app) countEvaluation(w http.ResponseWriter) {
	a.evaluations.Add(1)
	w.(*recorder).frequent = true
}

// sendJSON answers with a buffer that holds JSON, and gives it back. After a write that failed HTTP/2 may still
// read it.
func sendJSON(w http.ResponseWriter, buffer *[]byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(*buffer))}
	if _, err := w.Write(*buffer); err == nil {
		giveBack(buffer)
	}
}

var jsonType = []string{"application/json"}

// answerTag names what an answer depends on, never its content: A→B→A is a change, and a database that
// came from a copy has another epoch. Of its parts only the last can have dots.
func answerTag(s *flags.Snapshot, t *flags.Tenant, environment string) string {
	return `"` + s.Epoch() + "." + strconv.FormatInt(s.Revision(), 10) + "." + t.Slug + "." + environment + `"`
}

func (a *app) explain(w http.ResponseWriter, r *http.Request, c call) error {
	q, err := flags.DecodeQuestion(c.body)
	if err != nil {
		return err
	}
	if q.At != nil {
		return a.explainThen(w, r, c, q)
	}
	s := a.db.Current()
	t, environment, err := a.asked(s, c, q)
	if err != nil {
		return err
	}
	return writeExplanations(w, s, t, environment)
}

func writeExplanations(w http.ResponseWriter, s *flags.Snapshot, t *flags.Tenant, environment string) error {
	out := make(map[string]flags.Explanation, len(s.Flags()))
	for _, f := range s.Flags() {
		out[f.Key] = f.Explain(t, environment)
	}
	return writeJSON(w, http.StatusOK, out)
}

// tenantBrief is a tenant as an impact names it.
type tenantBrief struct {
	Slug        string  `json:"slug"`
	Name        string  `json:"name"`
	Plan        string  `json:"plan"`
	PartnerSlug *string `json:"partnerSlug"`
}

func briefs(ts []*flags.Tenant) []tenantBrief {
	out := make([]tenantBrief, len(ts))
	for i, t := range ts {
		out[i] = tenantBrief{Slug: t.Slug, Name: t.Name, Plan: t.Plan}
		if t.PartnerSlug != "" {
			out[i].PartnerSlug = &t.PartnerSlug
		}
	}
	return out
}

type impactCount struct {
	Gained int `json:"gained"`
	Lost   int `json:"lost"`
}

func (a *app) impact(w http.ResponseWriter, r *http.Request, c call) error {
	d, err := flags.DecodeDraft(c.body)
	if err != nil {
		return err
	}
	environment, err := a.inEnvironment(c.principal, d.Environment)
	if err != nil {
		return err
	}
	s := a.db.Current()
	before, err := a.flag(s, r)
	if err != nil {
		return err
	}
	if !s.HasEnvironment(environment) {
		d.Problems = append(d.Problems, unknownEnvironment(s, environment))
	}
	after, err := d.Apply(*before, s.Known)
	if err != nil {
		return err
	}
	limit := namedImpact
	if r.URL.Query().Get("all") == "1" {
		limit = math.MaxInt
	}
	p := s.Preview(before, &after, environment, limit)
	byEnvironment := make(map[string]impactCount, len(p.ByEnvironment))
	for i, name := range s.Environments() {
		byEnvironment[name] = impactCount{p.ByEnvironment[i].Gained, p.ByEnvironment[i].Lost}
	}
	return writeJSON(w, http.StatusOK, struct {
		Total         int                    `json:"total"`
		Matched       int                    `json:"matched"`
		Gained        int                    `json:"gained"`
		Lost          int                    `json:"lost"`
		Gains         []tenantBrief          `json:"gains"`
		Losses        []tenantBrief          `json:"losses"`
		GainedAny     int                    `json:"gainedAny"`
		ByEnvironment map[string]impactCount `json:"byEnvironment"`
		ByPct         []int                  `json:"byPct"`
	}{p.Total, p.Matched, p.Gained, p.Lost, briefs(p.Gains), briefs(p.Losses), p.GainedAny, byEnvironment, p.ByPct[:]})
}
