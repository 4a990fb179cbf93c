package handlers

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/provisioning"
	"github.com/dezky/platform-api/replica"
	"github.com/dezky/platform-api/templates"
)

// Limits of bodies, in bytes.
const (
	noBody    = 0
	smallBody = 64 << 10
	largeBody = 1 << 20

	rowsBody = -1 // the handler reads it, row by row: see importTenants
)

// app is the server once it has its database.
type app struct {
	server      *Server
	db          *db.DB
	tokens      *auth.Tokens
	bearers     auth.Bearers
	failures    *auth.Failures
	environment string
	csrf        *http.CrossOriginProtection
	origins     []string // of pages that may evaluate

	sessions     *auth.Sessions
	openID       *auth.OpenID // nil: no identity provider
	signIn       *auth.SignIn // nil: nobody signs in through one
	links        *auth.Links  // nil: nobody signs in by link here
	announceLink func(secret string)
	publicURL    string
	byHost       bool
	streams      *auth.StreamKeys
	hub          *hub
	confirmGain  int
	now          func() time.Time
	started      time.Time
	secure       bool // browsers reach the server by https
	reach        *flags.Reach
	quit         <-chan struct{}
	replica      *replica.Replica     // nil where there is none
	provisioning *provisioning.Runner // nil where tenants are held by no other system
	imports      tenantImports

	chain chain

	answers     *answers
	stats       stats
	evaluations atomic.Uint64
	consumers   consumers
	prometheus  http.Handler

	docs func() (templates.Docs, error)
}

// call is one authorized request to an API route.
type call struct {
	principal *auth.Principal
	body      []byte // until the handler returns
}

// route is one row of the table below.
type route struct {
	method, path string
	need         auth.Role
	body         int64
	handle       func(w http.ResponseWriter, r *http.Request, c call) error
	members      bool // customers' people may use it too, and see what is theirs
}

func (r route) pattern(prefix string) string { return r.method + " " + prefix + r.path }

// Who may use a route beside those of its role.
const (
	staff   = false // nobody
	members = true  // customers' people
)

// apiRoutes are the routes for services and people with a credential; each stands under /api as well.
func (a *app) apiRoutes() []route {
	return []route{
		{"POST", "/flags/evaluate", auth.Evaluate, smallBody, a.evaluate, members},
		{"POST", "/flags/explain", auth.Read, smallBody, a.explain, members},
		{"POST", "/ofrep/v1/evaluate/flags", auth.Evaluate, smallBody, a.ofrepBulk, members},
		{"POST", "/ofrep/v1/evaluate/flags/{key}", auth.Evaluate, smallBody, a.ofrepSingle, members},

		{"GET", "/events", auth.Evaluate, noBody, a.streamEvents, members},

		{"GET", "/me", auth.Evaluate, noBody, a.me, members},

		{"GET", "/flags", auth.Read, noBody, a.listFlags, members},
		{"POST", "/flags", auth.Operator, largeBody, a.createFlag, staff},
		{"GET", "/flags/{key}", auth.Read, noBody, a.getFlag, members},
		{"PATCH", "/flags/{key}", auth.Operator, largeBody, a.patchFlag, staff},
		{"DELETE", "/flags/{key}", auth.Operator, noBody, a.deleteFlag, staff},
		{"POST", "/flags/{key}/restore", auth.Operator, largeBody, a.restoreFlag, staff},
		{"POST", "/flags/{key}/impact", auth.Read, largeBody, a.impact, staff},
		{"GET", "/flags/{key}/history", auth.Read, noBody, a.flagHistory, staff},
		{"GET", "/history", auth.Read, noBody, a.history, staff},
		{"GET", "/history/difference", auth.Read, noBody, a.historyDifference, staff},
		{"POST", "/restore", auth.Operator, largeBody, a.restore, staff},

		{"GET", "/freeze", auth.Read, noBody, a.getFreeze, staff},
		{"PUT", "/freeze", auth.Operator, largeBody, a.putFreeze, staff},
		{"DELETE", "/freeze", auth.Operator, noBody, a.deleteFreeze, staff},

		{"GET", "/tenants", auth.Read, noBody, a.listTenants, members},
		{"POST", "/tenants", auth.Operator, largeBody, a.createTenant, staff},
		{"POST", "/tenants/import", auth.Operator, rowsBody, a.importTenants, staff},
		{"GET", "/tenants/{slug}", auth.Read, noBody, a.getTenant, members},
		{"PUT", "/tenants/{slug}", auth.Operator, largeBody, a.putTenant, staff},
		{"PATCH", "/tenants/{slug}", auth.Operator, largeBody, a.patchTenant, staff},
		{"DELETE", "/tenants/{slug}", auth.Operator, noBody, a.deleteTenant, staff},
		{"POST", "/tenants/{slug}/impact", auth.Read, largeBody, a.tenantImpact, staff},
		{"POST", "/tenants/{slug}/reconcile", auth.Operator, noBody, a.reconcileTenant, staff},

		{"GET", "/partners", auth.Read, noBody, a.listPartners, staff},
		{"POST", "/partners", auth.Operator, largeBody, a.createPartner, staff},
		{"GET", "/partners/{slug}", auth.Read, noBody, a.getPartner, staff},
		{"PATCH", "/partners/{slug}", auth.Operator, largeBody, a.patchPartner, staff},
		{"DELETE", "/partners/{slug}", auth.Operator, noBody, a.deletePartner, staff},
	}
}

// plainRoutes are guarded like those above, and do not stand under /api.
func (a *app) plainRoutes() []route {
	return []route{
		{"GET", "/metrics", auth.Read, noBody, a.metricsRoute, staff},
	}
}

// openRoutes need no credential, or look for their own: the stream's is in its URL.
func (a *app) openRoutes() []route {
	return []route{
		{"GET", "/{$}", auth.Nobody, noBody, a.root, members},
		{"GET", "/health", auth.Nobody, noBody, a.health, members},
		{"GET", "/ready", auth.Nobody, noBody, a.ready, members},
		{"GET", "/openapi.yaml", auth.Nobody, noBody, a.spec, members},
		{"GET", "/docs", auth.Nobody, noBody, a.docsPage, members},
		{"GET", "/ofrep/v1/stream", auth.Nobody, noBody, a.streamChanges, members},
	}
}

// consolePages are for people who are signed in, and answer HTML only.
func (a *app) consolePages() []screen {
	return []screen{
		{"GET", "/operator", auth.Read, a.front},
		{"GET", "/operator/{$}", auth.Read, a.front},
		{"GET", "/operator/flags", auth.Read, a.listFlagsPage},
		{"POST", "/operator/flags", auth.Operator, a.makeFlag},
		{"GET", "/operator/new-flag", auth.Operator, a.newFlag},
		{"GET", "/operator/flags/{key}", auth.Read, a.openFlag},
		{"POST", "/operator/flags/{key}", auth.Operator, a.saveFlag},
		{"POST", "/operator/flags/{key}/impact", auth.Operator, a.draftImpact},
		{"POST", "/operator/flags/{key}/preview", auth.Operator, a.previewFlag},
		{"POST", "/operator/flags/{key}/kill", auth.Operator, a.killFlag},
		{"POST", "/operator/flags/{key}/undo", auth.Operator, a.undoChange},
		{"POST", "/operator/flags/{key}/ontop", auth.Operator, a.ontop},
		{"POST", "/operator/flags/{key}/theirs", auth.Operator, a.theirs},
		{"POST", "/operator/flags/{key}/conflict", auth.Operator, a.conflictCard},
		{"GET", "/operator/flags/{key}/delete", auth.Operator, a.askDelete},
		{"POST", "/operator/flags/{key}/delete", auth.Operator, a.removeFlag},
		{"POST", "/operator/flags/{key}/restore", auth.Operator, a.bringBack},
		{"GET", "/operator/flags/{key}/explain", auth.Read, a.explainFlag},
		{"POST", "/operator/flags/{key}/explain", auth.Read, a.explainFlag},
		{"GET", "/operator/flags/{key}/life", auth.Read, a.flagLife},
		{"GET", "/operator/tenants", auth.Read, a.tenantsPage},
		{"POST", "/operator/tenants", auth.Operator, a.makeTenant},
		{"GET", "/operator/new-tenant", auth.Operator, a.newTenant},
		{"GET", "/operator/tenants/import", auth.Operator, a.importPage},
		{"GET", "/operator/reconcile", auth.Operator, a.askReconcile}, // not below tenants: it may be one's slug
		{"POST", "/operator/reconcile", auth.Operator, a.reconcileAll},
		{"GET", "/operator/tenants/{slug}", auth.Read, a.tenantPage},
		{"POST", "/operator/tenants/{slug}", auth.Operator, a.saveTenant},
		{"GET", "/operator/tenants/{slug}/edit", auth.Operator, a.editTenant},
		{"POST", "/operator/tenants/{slug}/impact", auth.Operator, a.draftTenant},
		{"POST", "/operator/tenants/{slug}/status", auth.Operator, a.setTenantStatus},
		{"GET", "/operator/tenants/{slug}/delete", auth.Operator, a.askRemove},
		{"POST", "/operator/tenants/{slug}/delete", auth.Operator, a.removeTenant},
		{"POST", "/operator/tenants/{slug}/reconcile", auth.Operator, a.reconcileNow},
		{"GET", "/operator/partners", auth.Read, a.partnersPage},
		{"POST", "/operator/partners", auth.Operator, a.makePartner},
		{"GET", "/operator/new-partner", auth.Operator, a.newPartner},
		{"POST", "/operator/partners/{slug}", auth.Operator, a.savePartner},
		{"GET", "/operator/partners/{slug}/edit", auth.Operator, a.editPartner},
		{"GET", "/operator/partners/{slug}/remove", auth.Operator, a.askRemovePartner},
		{"POST", "/operator/partners/{slug}/remove", auth.Operator, a.removePartner},
		{"GET", "/operator/audit", auth.Read, a.auditPage},
		{"GET", "/operator/audit.csv", auth.Read, a.auditCSV},
		{"GET", "/operator/audit.jsonl", auth.Read, a.auditLines},
		{"GET", "/operator/audit/{id}", auth.Read, a.auditEntry},
		{"GET", "/operator/audit/difference", auth.Read, a.differencePage},
		{"GET", "/operator/audit/difference.csv", auth.Read, a.differenceCSV},
		{"GET", "/operator/restore", auth.Operator, a.restorePage},
		{"POST", "/operator/restore", auth.Operator, a.restoreFlags},
		{"POST", "/operator/restore/preview", auth.Operator, a.previewRestore},
		{"POST", "/operator/restore/undo", auth.Operator, a.undoAll},
		{"GET", "/operator/tokens", auth.Operator, a.tokensPage},
		{"POST", "/operator/tokens", auth.Operator, a.makeToken},
		{"GET", "/operator/tokens/{id}/revoke", auth.Operator, a.askRevoke},
		{"POST", "/operator/tokens/{id}/revoke", auth.Operator, a.revokeToken},
		{"GET", "/operator/status", auth.Read, a.statusPage},
		{"POST", "/operator/status/drill", auth.Operator, a.runDrill},
		{"POST", "/operator/status/chain", auth.Operator, a.runChainCheck},
		{"POST", "/operator/status/freeze", auth.Operator, a.freezeChanges},
		{"POST", "/operator/thaw", auth.Operator, a.thawChanges},
		{"GET", "/operator/settings", auth.Read, a.settingsPage},
		{"POST", "/operator/settings", auth.Read, a.saveSettings},
		{"GET", "/operator/palette", auth.Read, a.palette},
		{"GET", "/operator/suggest", auth.Read, a.suggest},
		{"GET", "/operator/events", auth.Read, a.events},
	}
}

// unattended are parts of console pages that ask by themselves, which must not keep a session from ending.
func (a *app) unattended() []screen {
	return []screen{
		{"GET", "/operator/flags/{key}/consumers", auth.Read, a.flagConsumers},
		{"GET", "/operator/tenants/{slug}/provisioning", auth.Read, a.tenantProvisioning},
		{"GET", "/operator/reconcile/progress", auth.Read, a.reconcileProgress},
		{"GET", "/operator/tenants/import/progress", auth.Operator, a.importProgress},
	}
}

// uploads are console pages that take files of up to uploadMost bytes, and read them as they come.
func (a *app) uploads() []screen {
	return []screen{
		{"POST", "/operator/tenants/import", auth.Operator, a.startImport},
	}
}

// entrances need no session.
func (a *app) entrances() []screen {
	return []screen{
		{"GET", "/login", auth.Nobody, a.signInPage},
		{"POST", "/login", auth.Nobody, a.printLink},
		{"GET", "/login/start", auth.Nobody, a.beginSignIn},
		{"GET", auth.CallbackPath, auth.Nobody, a.finishSignIn},
		{"GET", "/login/link", auth.Nobody, a.link},
		{"POST", "/login/link", auth.Nobody, a.redeemLink},
		{"POST", "/logout", auth.Nobody, a.signOut},
		{"POST", auth.BackChannelPath, auth.Nobody, a.backChannelLogout},
	}
}

// open runs a route that needs no credential.
func (a *app) open(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder)
		rec.routed = true
		if err := rt.handle(w, r, call{}); err != nil {
			a.server.fail(rec, r, err)
		}
	})
}

// guard runs a route for a principal who may use it, with its body read. Only Authorization and X-API-Key
// count. Behind a browser path (/api), the session cookie counts too, and a change from another origin is
// refused.
func (a *app) guard(rt route, browser bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder)
		rec.routed = true
		err := func() error {
			if browser && a.csrf.Check(r) != nil {
				return &refusal{http.StatusForbidden, "forbidden", "a change from another origin is refused"}
			}
			p, err := a.bearers.Principal(r)
			if browser && errors.Is(err, auth.ErrNoCredentials) {
				p, err = a.bySession(r, rt)
			}
			if err != nil {
				return a.countFailure(rec, r, err)
			}
			rec.principal = p
			if !p.May(rt.need) && !(rt.members && p.Role == auth.Member) {
				return a.forbidden(p, rt.need)
			}
			c := call{principal: p}
			if rt.body > noBody {
				buffer := buffers.Get().(*[]byte)
				defer giveBack(buffer)
				if *buffer, err = readBody(w, r, (*buffer)[:0], rt.body); err != nil {
					return err
				}
				c.body = *buffer
			}
			return rt.handle(w, r, c)
		}()
		if err != nil {
			a.server.fail(rec, r, err)
		}
	})
}

// bySession is the principal of the session cookie, which counts only where no credential is given.
func (a *app) bySession(r *http.Request, rt route) (*auth.Principal, error) {
	if err := a.browser(r); err != nil {
		return nil, err
	}
	use := auth.Look
	if rt.need == auth.Operator {
		use = auth.Change
	}
	p, err := a.person(r, use, a.sessions.Find)
	if err == nil && p == nil {
		err = auth.ErrNoCredentials
	}
	if err != nil {
		return nil, err
	}
	return p.Through(flags.ViaAPI), nil
}

// person is who a request's session is for, or nil. A session from another way of signing in than the one
// that is configured is none.
func (a *app) person(r *http.Request, use auth.Use, find func(*http.Request) (*auth.Session, error)) (*auth.Principal, error) {
	s, err := find(r)
	if err != nil || s == nil || s.FromProvider() && a.signIn == nil || !s.FromProvider() && a.signIn != nil {
		return nil, err
	}
	if a.signIn == nil {
		return &s.Principal, nil
	}
	p, err := a.signIn.Check(r.Context(), s, use)
	if errors.Is(err, auth.ErrSessionEnded) {
		return nil, nil
	}
	return p, err
}

// countFailure notes the cause of a refused credential for the log, and counts it: past a number of
// failures from one address, the answer is to wait. Giving no credential is no failure.
func (a *app) countFailure(rec *recorder, r *http.Request, err error) error {
	if !errors.Is(err, auth.ErrToken) && !errors.Is(err, auth.ErrCredentials) {
		return err
	}
	rec.cause = err.Error()
	return a.failed(r, err)
}

// failed counts a failed attempt to get in, and returns the error to answer with.
func (a *app) failed(r *http.Request, err error) error {
	if wait := a.failures.Count(auth.ClientAddress(r, a.server.opts.Proxies)); wait > 0 {
		return &tooMany{wait}
	}
	return err
}

func (a *app) forbidden(p *auth.Principal, need auth.Role) error {
	detail := fmt.Sprintf("this needs the role %s; yours is %s", need, p.Role)
	if p.Role == auth.Nobody && a.signIn != nil {
		detail += ", because you are in none of the groups that give one"
	}
	return &refusal{http.StatusForbidden, "forbidden", detail}
}

// readBody appends a JSON body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, into []byte, limit int64) ([]byte, error) {
	if err := jsonBody(r); err != nil {
		return into, err
	}
	if r.ContentLength > limit {
		return into, tooLarge(limit)
	}
	if r.ContentLength >= 0 {
		into = slices.Grow(into, int(r.ContentLength))[:r.ContentLength]
		if _, err := io.ReadFull(r.Body, into); err != nil {
			return into, errBody
		}
		return into, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return into, tooLarge(limit)
	}
	if err != nil {
		return into, errBody
	}
	return append(into, body...), nil
}

func tooLarge(limit int64) error {
	return &refusal{http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("the body is larger than %d bytes", limit)}
}

var errBody = &refusal{http.StatusBadRequest, "bad-request", "the body could not be read to its end"}

// jsonBody refuses what does not say that it is JSON.
func jsonBody(r *http.Request) error {
	if given := r.Header["Content-Type"]; len(given) == 1 && given[0] == "application/json" && r.Header["Content-Encoding"] == nil {
		return nil
	}
	allowed := []string{"application/json"}
	if r.Method == http.MethodPatch {
		allowed = append(allowed, "application/merge-patch+json")
	}
	_, err := mediaType(r, allowed...)
	return err
}

// mediaType returns which of the allowed types the body says that it has.
func mediaType(r *http.Request, allowed ...string) (string, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	ok := err == nil && slices.Contains(allowed, media)
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		ok = false
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		ok = false
	}
	if !ok {
		return "", &refusal{http.StatusUnsupportedMediaType, "unsupported-media-type",
			"the body must be " + strings.Join(allowed, " or ") + " in UTF-8, not compressed"}
	}
	return media, nil
}
