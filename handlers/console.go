package handlers

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// screen is one row of the console's table in routes.go.
type screen struct {
	method, path string
	need         auth.Role
	handle       func(w http.ResponseWriter, r *http.Request, v visit) error
}

func (p screen) pattern() string { return p.method + " " + p.path }

// visit is one request of a person who is signed in.
type visit struct {
	principal *auth.Principal
	snapshot  *flags.Snapshot
	env       string // in which counts are made
	prefs     preferences
}

func (v visit) operator() bool { return v.principal.May(auth.Operator) }

// preferences are how a person likes the console, kept in a cookie so that the server renders them.
type preferences struct {
	Theme, Density, Env string
	KeysOff             bool
}

const preferencesCookie = "dezky-preferences"

func readPreferences(r *http.Request) preferences {
	var p preferences
	cookie, err := r.Cookie(preferencesCookie)
	if err != nil {
		return p
	}
	q, err := url.ParseQuery(cookie.Value)
	if err != nil {
		return p
	}
	if theme := q.Get("theme"); theme == "light" || theme == "dark" {
		p.Theme = theme
	}
	if q.Get("density") == "compact" {
		p.Density = "compact"
	}
	p.Env, p.KeysOff = q.Get("env"), q.Get("keys") == "off"
	return p
}

// console runs a page for a person who may see it. Its cookie counts; a change from another origin is
// refused; a person without a session is asked to sign in, in the way that suits the request. find says whether
// a visit is a use of the session, by which it goes on. A body may have body bytes.
func (a *app) console(p screen, find func(*http.Request) (*auth.Session, error), body int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder)
		rec.routed = true
		v := visit{snapshot: a.db.Current(), prefs: readPreferences(r)}
		err := func() (err error) {
			if err := a.browser(r); err != nil {
				return err
			}
			who, err := a.person(r, useOf(r, p), find)
			if errors.Is(err, auth.ErrSignInAgain) && useOf(r, p) == auth.Navigate {
				http.Redirect(w, r, "/login/start?return_to="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
				return nil
			}
			if err == nil && who == nil || errors.Is(err, auth.ErrSignInAgain) {
				return a.askToSignIn(w, r)
			}
			if err != nil {
				return err
			}
			v.principal = who.Through(flags.ViaConsole)
			rec.principal = v.principal
			if !v.principal.May(p.need) {
				return a.forbidden(v.principal, p.need)
			}
			r.Body = http.MaxBytesReader(w, r.Body, body)
			if r.Method == http.MethodPost {
				if err := r.ParseForm(); err != nil {
					return fmt.Errorf("form: %w", err)
				}
			}
			v.env = a.viewed(r, v)
			return p.handle(w, r, v)
		}()
		if err != nil {
			a.failPage(rec, r, v, err)
		}
	})
}

// useOf says what a request to a page wants of the session.
func useOf(r *http.Request, p screen) auth.Use {
	switch {
	case r.Method == http.MethodPost && p.need == auth.Operator:
		return auth.Change
	case r.Method != http.MethodPost && !fromHtmx(r) && r.Header.Get("Accept") != "text/event-stream":
		return auth.Navigate
	}
	return auth.Look
}

// entrance runs a page that needs no session.
func (a *app) entrance(p screen) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder)
		rec.routed = true
		err := a.browser(r)
		if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, smallBody)
			err = p.handle(w, r, visit{snapshot: a.db.Current(), prefs: readPreferences(r)})
		}
		if err != nil {
			a.failPage(rec, r, visit{}, err)
		}
	})
}

// browser refuses what no browser of ours sends: a change from another origin, and, where the sign-in is
// by one-time link, a name that is not the loopback's (DNS rebinding).
func (a *app) browser(r *http.Request) error {
	if a.csrf.Check(r) != nil {
		return &refusal{http.StatusForbidden, "forbidden", "a change from another origin is refused"}
	}
	if a.links != nil && !loopbackName(r.Host) {
		return &refusal{http.StatusForbidden, "forbidden", fmt.Sprintf("the console answers to localhost, 127.0.0.1 and [::1] alone, not to %q", r.Host)}
	}
	return nil
}

func loopbackName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	return slices.Contains([]string{"localhost", "127.0.0.1", "[::1]", "::1"}, name)
}

// viewed is the environment that a person looks at: the one of the address or the form, else of the page
// that htmx asks from, else the usual one.
func (a *app) viewed(r *http.Request, v visit) string {
	names := []string{r.URL.Query().Get("env"), r.PostForm.Get("in_env")}
	if page, err := url.Parse(r.Header.Get("HX-Current-URL")); err == nil {
		names = append(names, page.Query().Get("env"))
	}
	for _, name := range names {
		if v.snapshot.HasEnvironment(name) {
			return name
		}
	}
	return a.usual(v)
}

// usual is the environment that a person looks at where no address names one.
func (a *app) usual(v visit) string {
	if v.snapshot.HasEnvironment(v.prefs.Env) {
		return v.prefs.Env
	}
	return a.environment
}

// fromHtmx tells whether htmx asks, and for a fragment rather than a page.
func fromHtmx(r *http.Request) bool {
	return r.Header.Get("HX-Request") == "true"
}

func wantsFragment(r *http.Request) bool {
	return fromHtmx(r) && r.Header.Get("HX-Request-Type") == "partial"
}

// askToSignIn sends a page to the sign-in, and opens a dialog over one that htmx asks from.
func (a *app) askToSignIn(w http.ResponseWriter, r *http.Request) error {
	if fromHtmx(r) {
		back := "/operator/flags"
		if u, err := url.Parse(r.Header.Get("HX-Current-URL")); err == nil {
			if path := returnTo(u.RequestURI()); path != "" {
				back = path
			}
		}
		return a.swaps(w, http.StatusUnauthorized, templates.Swaps{Parts: []templates.Part{
			{Target: "#dialogs", Swap: "innerHTML", View: templates.SignInDialog{ReturnTo: back}}}})
	}
	back := "/operator/flags"
	if r.Method == http.MethodGet {
		back = r.URL.RequestURI()
	}
	http.Redirect(w, r, "/login?return_to="+url.QueryEscape(back), http.StatusSeeOther)
	return nil
}

// returnTo is where a person goes after the sign-in: a path of ours, or "". It is judged as it is, and as
// often as it can be decoded.
func returnTo(address string) string {
	if len(address) > 2048 || !strings.HasPrefix(address, "/") {
		return ""
	}
	for s, last := address, ""; s != last; {
		way, _, _ := strings.Cut(s, "?")
		if strings.Contains(s, `\`) || strings.HasPrefix(s, "//") || strings.HasPrefix(path.Clean(way), "/login") || strings.ContainsFunc(s, unicode.IsControl) {
			return ""
		}
		plain, err := url.PathUnescape(s)
		if err != nil && last == "" { // later it is no more than a text with a %
			return ""
		}
		if err != nil {
			plain = s
		}
		s, last = plain, s
	}
	return address
}

// chrome is what surrounds a page.
func (a *app) chrome(v visit, section, title string) templates.Chrome {
	c := templates.Chrome{
		Title: title, Section: section, Who: v.principal.Name, Initials: initials(v.principal.Name),
		Role: "Viewer", Operator: v.operator(), FlagCount: len(v.snapshot.Flags()), Tenants: len(v.snapshot.Tenants()),
		Theme: v.prefs.Theme, Density: v.prefs.Density, KeysOff: v.prefs.KeysOff,
		Env: v.env, Envs: v.snapshot.Environments(), Revision: eventID(v.snapshot),
	}
	if c.Operator {
		c.Role = "Operator"
	}
	c.Alarm = templates.Alarm{Text: a.alarm()}
	c.Freeze = a.freezeBanner(v, a.db.Current().Frozen(a.now()))
	return c
}

func initials(name string) string {
	local, _, _ := strings.Cut(name, "@")
	parts := strings.FieldsFunc(local, func(r rune) bool { return r == '.' || r == '-' || r == '_' })
	out := ""
	for _, part := range parts {
		if len(out) < 2 {
			out += strings.ToUpper(part[:1])
		}
	}
	if out == "" {
		return "?"
	}
	return out
}

// html answers with a page or a fragment.
func (a *app) html(w http.ResponseWriter, status int, v templates.View) error {
	return a.writeHTML(w, status, func(to io.Writer) error { return templates.Render(to, v) })
}

// swaps answers htmx with fragments for several places.
func (a *app) swaps(w http.ResponseWriter, status int, s templates.Swaps) error {
	return a.writeHTML(w, status, func(to io.Writer) error { return templates.RenderSwaps(to, s) })
}

// consolePolicy is the CSP of the console: our own scripts, styles, images and requests, nothing inline.
const consolePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (a *app) writeHTML(w http.ResponseWriter, status int, render func(io.Writer) error) error {
	var b bytes.Buffer
	if err := render(&b); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	policy := consolePolicy
	if a.signIn != nil {
		if end := a.signIn.EndSessionOrigin(); end != "" { // the form that signs out leads on to there
			policy = strings.Replace(policy, "form-action 'self'", "form-action 'self' "+end, 1)
		}
	}
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "HX-Request, HX-Request-Type")
	w.WriteHeader(status)
	w.Write(b.Bytes())
	return nil
}

var zippers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, 6) // a list of 500 flags: 23 kB, and 35 at the fastest level
	if err != nil {
		panic(err) // the level is constant
	}
	return z
}}

// zipped compresses HTML for those who take it. JSON is left alone: its ETags are of the plain text.
func zipped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder)
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			z := zippers.Get().(*gzip.Writer)
			defer zippers.Put(z)
			plain := rec.ResponseWriter
			zw := &zipWriter{ResponseWriter: plain, z: z}
			rec.ResponseWriter = zw
			defer func() {
				zw.close()
				rec.ResponseWriter = plain
			}()
		}
		next.ServeHTTP(w, r)
	})
}

// zipWriter begins to compress when it sees that the answer is HTML.
type zipWriter struct {
	http.ResponseWriter
	z       *gzip.Writer
	decided bool
	zipping bool
}

func (w *zipWriter) WriteHeader(status int) {
	if !w.decided {
		w.decided = true
		h := w.Header()
		if strings.HasPrefix(h.Get("Content-Type"), "text/html") && status != http.StatusNoContent && status != http.StatusNotModified {
			w.zipping = true
			h.Set("Content-Encoding", "gzip")
			h.Add("Vary", "Accept-Encoding")
			h.Del("Content-Length")
			w.z.Reset(w.ResponseWriter)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *zipWriter) Write(b []byte) (int, error) {
	if !w.decided {
		w.WriteHeader(http.StatusOK)
	}
	if w.zipping {
		return w.z.Write(b)
	}
	return w.ResponseWriter.Write(b)
}

func (w *zipWriter) close() {
	if w.zipping {
		w.z.Close()
	}
}

// Unwrap is for http.ResponseController.
func (w *zipWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// failPage answers with an error in the form that the request can show: a toast for htmx, which never
// replaces what is on the screen, or a whole page.
func (a *app) failPage(rec *recorder, r *http.Request, v visit, err error) {
	status, heading, text := http.StatusInternalServerError, "Something went wrong", "Something went wrong here. The log knows it by the request's id."
	var refused *refusal
	var conflict *flags.Conflict
	var invalid *flags.Invalid
	var frozen *flags.Frozen
	var tooLarge *http.MaxBytesError
	var many *tooMany
	var alone *db.NotReplicated
	reason, broken := db.Broken(err)
	switch {
	case errors.As(err, &many):
		status, heading, text = http.StatusTooManyRequests, "Too many attempts", sentence(many.Error())
		rec.Header().Set("Retry-After", retryAfter(many.wait))
	case errors.Is(err, auth.ErrProviderAway):
		rec.cause = err.Error()
		status, heading = http.StatusServiceUnavailable, "The identity provider is away"
		text = "It could not be asked whether you still may, so nothing was changed. Try again in a minute."
		rec.Header().Set("Retry-After", "5")
	case errors.As(err, &alone):
		status, heading, text = http.StatusServiceUnavailable, "Not in the replica yet", sentence(alone.Error())
	case broken:
		status, heading, text = http.StatusServiceUnavailable, "The database can’t be used", sentence(unusable(reason))
		a.server.opts.Log.Error("database unusable", "id", rec.id, "error", err.Error())
	case errors.As(err, &refused):
		status, text = refused.status, sentence(refused.detail)
		heading = http.StatusText(status)
		heading = heading[:1] + strings.ToLower(heading[1:])
	case errors.Is(err, flags.ErrNotFound):
		status, heading, text = http.StatusNotFound, "Not found", sentence(err.Error())
	case errors.As(err, &conflict):
		status, heading, text = http.StatusConflict, "Conflict", sentence(conflict.Error())
	case errors.As(err, &frozen):
		status, heading, text = http.StatusLocked, "Changes are frozen", sentence(strings.TrimRight(frozen.Error(), "."))
		rec.Header().Set("Retry-After", a.server.freezeEnds(frozen))
	case errors.As(err, &invalid):
		status, heading, text = http.StatusUnprocessableEntity, "Not allowed", sentence(invalid.Error())
	case errors.As(err, &tooLarge):
		status, heading, text = http.StatusRequestEntityTooLarge, "Too large", "The form is larger than the server takes."
	default:
		a.server.opts.Log.Error("request failed", "id", rec.id, "error", err.Error())
	}
	if rec.status != 0 {
		return
	}
	rec.Header().Set("X-Reason", url.PathEscape(text)) // what the script tells of an answer that it shows nothing of
	if fromHtmx(r) {
		toast := templates.Toast{Icon: "warn", Text: text, Alert: true}
		err = a.swaps(rec, status, templates.Swaps{Parts: []templates.Part{{Target: "#toasts", Swap: "beforeend", View: toast}}})
	} else {
		page := templates.ErrorPage{Status: status, Heading: heading, Text: text, ID: rec.id, Back: "/operator/flags", BackText: "Back to the flags"}
		if v.principal != nil {
			page.Chrome, page.SignedIn = a.chrome(v, "", heading), true
		}
		err = a.html(rec, status, page)
	}
	if err != nil {
		a.server.opts.Log.Error("error page failed", "id", rec.id, "error", err.Error())
		a.server.fail(rec, r, errPanic)
	}
}

// sentence makes an error's text a sentence.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// ago says how long ago something was, as people say it.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d < 5*time.Second:
		return "just now"
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s ago"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min ago"
	case d < 24*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h ago"
	case d < 48*time.Hour:
		return "yesterday"
	case d < 14*24*time.Hour:
		return strconv.Itoa(int(d/(24*time.Hour))) + " days ago"
	case t.Year() == now.Year():
		return t.UTC().Format("2 Jan")
	}
	return t.UTC().Format("2 Jan 2006")
}

func (a *app) time(t time.Time) templates.Time {
	return templates.Time{At: t, Ago: ago(t, a.now())}
}

// plural is a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
