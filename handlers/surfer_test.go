package handlers

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// signIns is a server with its identity provider.
type signIns struct {
	*running
	p *authtest.Provider
}

// signInServer starts both; the provider's access tokens last as long as Authentik's unless o says otherwise.
func signInServer(t *testing.T, o authtest.Options) *signIns {
	t.Helper()
	o.Alg = "ES256" // its keys are quick to make
	p := authtest.New(t, o)
	return &signIns{trusting(t, p), p}
}

// anHour is the life of access tokens that outlast a test.
var anHour = authtest.Options{AccessTokenLife: 24 * time.Hour}

// almost is how long before a limit a test looks: the clocks run on, and machines may be slow.
const almost = 30 * time.Second

// later moves both clocks.
func (s *signIns) later(d time.Duration) {
	s.moveClock(d)
	s.p.SetOffset(time.Duration(s.ahead.Load()))
}

// surfer is a person's browser: it keeps cookies and follows redirects.
type surfer struct {
	t      *testing.T
	s      *signIns
	client *http.Client
	way    []string // the addresses of the last request, from the first to the last
	before string   // a path at which redirects are not followed
}

func (s *signIns) surfer(t *testing.T) *surfer {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &surfer{t: t, s: s}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	b.client = &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if b.before != "" && strings.HasPrefix(r.URL.Path, b.before) {
			return http.ErrUseLastResponse
		}
		b.way = append(b.way, r.URL.String())
		if len(via) > 12 {
			return errors.New("too many redirects")
		}
		return nil
	}}
	return b
}

// seen is what a browser got to see.
type seen struct {
	*http.Response
	text string
}

// send asks for an address, of the server's own if it is a path. Headers are "Name: value".
func (b *surfer) send(method, address string, form url.Values, headers ...string) *seen {
	b.t.Helper()
	a, err := b.try(method, address, form, headers...)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

func (b *surfer) try(method, address string, form url.Values, headers ...string) (*seen, error) {
	if strings.HasPrefix(address, "/") {
		address = b.s.url + address
	}
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, address, body)
	if err != nil {
		return nil, err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	b.way = []string{address}
	response, err := b.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return &seen{response, string(text)}, nil
}

// get wants a page with a status.
func (b *surfer) get(status int, address string, headers ...string) *seen {
	b.t.Helper()
	a := b.send(http.MethodGet, address, nil, headers...)
	if a.StatusCode != status {
		b.t.Fatalf("GET %s = %d at %s, want %d\n%.900s", address, a.StatusCode, a.Request.URL, status, main(a.text))
	}
	return a
}

// stop asks for an address, and does not follow a redirect to a path.
func (b *surfer) stop(path, address string, headers ...string) *seen {
	b.t.Helper()
	b.before = path
	defer func() { b.before = "" }()
	return b.send(http.MethodGet, address, nil, headers...)
}

// main is what a page says, without its tags.
func main(page string) string {
	_, page, found := strings.Cut(page, "<main")
	if !found {
		return "no page"
	}
	return strings.Join(strings.Fields(html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString("<main"+page, " "))), " ")
}

func (a *seen) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(main(a.text), text) {
			t.Errorf("%s does not say %q, but\n%s", a.Request.URL.Path, text, main(a.text))
		}
	}
}

// callback goes through the sign-in up to the way back, and returns its address.
func (b *surfer) callback(sub, start string) string {
	b.t.Helper()
	b.s.p.SignInAs(sub)
	to := b.stop(auth.CallbackPath, start).Header.Get("Location")
	if !strings.HasPrefix(to, b.s.url+auth.CallbackPath) {
		b.t.Fatalf("%s leads to %q, want the callback", start, to)
	}
	return to
}

// signIn signs a person in, who then sees the list of flags.
func (b *surfer) signIn(sub string) {
	b.t.Helper()
	b.s.p.SignInAs(sub)
	b.get(http.StatusOK, "/login/start")
	if role := b.role(); role == "" {
		b.t.Fatal("nobody is signed in")
	}
}

const sessionCookie = "dezky-session"

// cookie is a cookie's value, "" without it.
func (b *surfer) cookie(name string) string {
	b.t.Helper()
	u, err := url.Parse(b.s.url)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

func (b *surfer) attempts() (names []string, size int) {
	u, err := url.Parse(b.s.url)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.client.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, "dezky-login-") {
			names, size = append(names, c.Name), size+len(c.Value)
		}
	}
	return names, size
}

func (b *surfer) setCookie(name, value string) {
	b.t.Helper()
	u, err := url.Parse(b.s.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

var whoami = regexp.MustCompile(`<b>([^<]*)</b><small>([^<]*)</small>`)

// role is "NAME ROLE" of the session, as a fragment shows it: to look is all that it wants; "" without one.
func (b *surfer) role() string {
	b.t.Helper()
	a := b.send(http.MethodGet, "/operator/settings", nil, "HX-Request: true")
	if a.StatusCode == http.StatusUnauthorized {
		return ""
	}
	m := whoami.FindStringSubmatch(a.text)
	if m == nil {
		b.t.Fatalf("/operator/settings = %d, names nobody", a.StatusCode)
	}
	return html.UnescapeString(m[1]) + " " + m[2]
}

// kill asks htmx's way for a change, and returns the answer.
func (b *surfer) kill(headers ...string) *seen {
	b.t.Helper()
	f := b.s.db.Current().Flag("calendar")
	return b.send(http.MethodPost, "/operator/flags/calendar/kill", url.Values{"version": {fmt.Sprint(f.Version)}},
		append([]string{"HX-Request: true", "HX-Request-Type: partial", "HX-Current-URL: " + b.s.url + "/operator/flags/calendar?env=staging"}, headers...)...)
}

// api sends a JSON request with the session's cookie alone, held against the document.
func (b *surfer) api(status int, line, body string, headers ...string) *answer {
	b.t.Helper()
	return b.s.want(b.t, status, line, body, append([]string{nobody, "Cookie: " + sessionCookie + "=" + b.cookie(sessionCookie)}, headers...)...)
}

const patch = `{"description":"changed"}`

// nothing checks that nobody is signed in, and that no session was begun.
func (b *surfer) nothing(why string) {
	b.t.Helper()
	if got := b.cookie(sessionCookie); got != "" {
		b.t.Errorf("%s: there is a session cookie", why)
	}
	if n := b.s.sessionRows(b.t); n != 0 {
		b.t.Errorf("%s: %d sessions, want none", why, n)
	}
}

// sessionRows is how many sessions the database has.
func (s *signIns) sessionRows(t testing.TB) (n int) {
	t.Helper()
	file, err := sql.Open("sqlite", filepath.Join(s.dir, "platform-api.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.QueryRowContext(t.Context(), "SELECT count(*) FROM sessions").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// tamper stands between the server and its provider, under an address of its own, and changes what the token
// endpoint answers.
type tamper struct {
	url string

	mu     sync.Mutex
	change func(answer map[string]any)
	last   map[string]any // the provider's own answer
}

func newTamper(t *testing.T, p *authtest.Provider) *tamper {
	tp := &tamper{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, p.URL()+r.URL.RequestURI(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		out.Host, out.Header = r.Host, r.Header.Clone() // the provider then takes our address for its own
		out.Header.Del("Accept-Encoding")
		response, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/token/") && response.StatusCode == http.StatusOK {
			body = tp.pass(body)
		}
		maps.Copy(w.Header(), response.Header)
		w.Header().Del("Content-Length")
		w.WriteHeader(response.StatusCode)
		w.Write(body)
	}))
	t.Cleanup(server.Close)
	tp.url = server.URL
	return tp
}

func (tp *tamper) pass(body []byte) []byte {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		panic(err)
	}
	tp.last = maps.Clone(answer)
	if tp.change != nil {
		tp.change(answer)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	return body
}

func (tp *tamper) set(change func(answer map[string]any)) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.change = change
}

func (tp *tamper) answered(name string) string {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	text, _ := tp.last[name].(string)
	return text
}

// claimsOf reads a token's claims.
func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func tamperedServer(t *testing.T) (*signIns, *tamper) {
	t.Helper()
	p := authtest.New(t, authtest.Options{Alg: "ES256", AccessTokenLife: time.Hour})
	tp := newTamper(t, p)
	s := listen(t, readSpec())
	p.PutClient(authtest.Console(s.url))
	s.trust(t, tp.url+"/application/o/dezky-operator/", t.TempDir(), nil)
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	s.registry(t)
	return &signIns{s, p}, tp
}

// newest is the newest entry of the history, as the API tells it.
func (s *signIns) newest(t testing.TB) flags.Entry {
	t.Helper()
	return decode[[]flags.Entry](t, s.want(t, http.StatusOK, "GET /history?limit=1", ""))[0]
}
