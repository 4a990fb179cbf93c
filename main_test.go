package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/provisioning/provisioningtest"
)

// asProgram makes this test binary behave as the program, so that tests can run it as a process.
const asProgram = "PLATFORM_API_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Unsetenv(asProgram)
		main()
	}
	if what := os.Getenv(asBare); what != "" {
		serveBare(what)
		return
	}
	os.Exit(m.Run())
}

// house is the import rule: what each package may import of ours.
var house = map[string][]string{
	".":         {"auth", "db", "flags", "handlers", "seed", "static", "provisioning", "replica"},
	"handlers":  {"auth", "db", "flags", "provisioning", "replica", "static", "templates"},
	"templates": {"flags", "static"},
	"static":    {},
	"auth":      {"db", "flags"},
	"replica":   {"db", "flags"},

	"provisioning": {"db", "flags"},

	"seed":  {"db", "flags"},
	"db":    {"flags"},
	"flags": {},

	"auth/authtest/dev": {"auth/authtest"}, // make dev's command, never shipped
}

func TestImportRule(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/dezky/platform-api"
	room := func(path string) string {
		if path == module {
			return "."
		}
		return strings.TrimPrefix(path, module+"/")
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var p struct {
			ImportPath, Name                   string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := room(p.ImportPath)
		if strings.HasSuffix(from, "test") {
			continue
		}
		allowed, known := house[from]
		if !known {
			t.Errorf("package %s has no place in the house", from)
		}
		for _, path := range p.Imports {
			to := room(path)
			switch {
			case strings.HasPrefix(path, module) && !slices.Contains(allowed, to):
				t.Errorf("%s imports %s, which the import rule forbids", from, to)
			case from == "flags" && strings.Contains(strings.Split(path, "/")[0], "."):
				t.Errorf("flags imports %s, which is not of the standard library", path)
			case from == "flags" && slices.Contains([]string{"database/sql", "net/http", "log/slog", "log"}, path):
				t.Errorf("flags imports %s: no SQL, no HTTP, no logger", path)
			case from == "db" && path == "net/http":
				t.Error("db imports net/http")
			case from != "db" && strings.HasPrefix(path, "database/sql"):
				t.Errorf("%s imports %s: db is the only SQL", from, path)
			}
		}
	}
	if seen < 6 {
		t.Errorf("go list found %d packages, want the whole house", seen)
	}
}

// env is an environment with nothing in it but what is given.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// execute runs the program to its end and returns its exit status and what it printed.
func execute(t *testing.T, getenv func(string) string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, getenv, &out, &errs)
	return status, out.String(), errs.String()
}

// must runs a command that has to succeed and returns its stdout.
func must(t *testing.T, args ...string) string {
	t.Helper()
	status, stdout, stderr := execute(t, env(), args...)
	if status != exitOK {
		t.Fatalf("%v = exit %d: %s", args, status, stderr)
	}
	return stdout
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct {
		name   string
		getenv func(string) string
		args   []string
		want   []string // a part of each line, in order
	}{
		{"unknown command", env(), []string{"frobnicate"}, []string{`unknown command "frobnicate"`}},
		{"token without a verb", env(), []string{"token"}, []string{`unknown command "token"`}},
		{"unknown flag", env(), []string{"serve", "-bogus", "3"}, []string{"-bogus"}},
		{"a later version's setting", env(), []string{"serve", "-follow", "file:///tmp"}, []string{"-follow"}},
		{"operand", env(), []string{"serve", "now"}, []string{`unexpected argument "now"`}},
		{"missing operand", env(), []string{"import"}, []string{"import needs FILE"}},
		{"bad switch", env(), []string{"serve", "-demo=perhaps"}, []string{"-demo"}},
		{"variables, all at once", env("PLATFORM_API_ADDR", "nowhere", "PLATFORM_API_URL", "ftp://x", "PLATFORM_API_DATA_DIR", "\x00",
			"PLATFORM_API_ENVIRONMENTS", "production,,production", "PLATFORM_API_ENVIRONMENT", "mars", "PLATFORM_API_LOG", "loud"), []string{"serve"},
			[]string{"PLATFORM_API_LOG: ", "PLATFORM_API_ADDR: ", "PLATFORM_API_URL: ", "PLATFORM_API_DATA_DIR: ",
				`PLATFORM_API_ENVIRONMENTS: ""`, "PLATFORM_API_ENVIRONMENTS: \"production\" is given twice", "PLATFORM_API_ENVIRONMENT: "}},
		{"flags and variables", env("PLATFORM_API_LOG", "loud"), []string{"-bogus", "-addr", "x", "-url=http://a/b"},
			[]string{"-bogus", "PLATFORM_API_LOG: ", "-addr (PLATFORM_API_ADDR): ", "-url (PLATFORM_API_URL): "}},
		{"port too large", env(), []string{"-addr", ":65536"}, []string{"-addr"}},
		{"URL with a user", env("PLATFORM_API_URL", "https://me@host"), nil, []string{"PLATFORM_API_URL"}},
		{"session keys", env("PLATFORM_API_SESSION_KEY", "c2hvcnQ=,?", "PLATFORM_API_CONFIRM_GAIN", "-1"), nil,
			[]string{"PLATFORM_API_CONFIRM_GAIN", "PLATFORM_API_SESSION_KEY: key 1", "PLATFORM_API_SESSION_KEY: key 2"}},
		{"session key file", env("PLATFORM_API_SESSION_KEY_FILE", "/nowhere/key"), nil, []string{"PLATFORM_API_SESSION_KEY_FILE: open /nowhere/key"}},
		{"identity provider, one part of three", env("PLATFORM_API_OIDC_CLIENT_ID", "console"), nil,
			[]string{"PLATFORM_API_OIDC_ISSUER: is missing", "PLATFORM_API_OIDC_CLIENT_SECRET: is missing", "PLATFORM_API_URL: is missing"}},
		{"identity provider, another part", env("PLATFORM_API_OIDC_CLIENT_SECRET", "s", "PLATFORM_API_URL", "https://flags.example.com"), nil,
			[]string{"PLATFORM_API_OIDC_ISSUER: is missing", "PLATFORM_API_OIDC_CLIENT_ID: is missing"}},
		{"identity provider in the clear", env("PLATFORM_API_OIDC_ISSUER", "http://id.example.com/application/o/flags/", "PLATFORM_API_OIDC_CLIENT_ID", "console",
			"PLATFORM_API_OIDC_CLIENT_SECRET", "s", "PLATFORM_API_URL", "http://flags.example.com"), nil,
			[]string{`PLATFORM_API_OIDC_ISSUER: "http://id.example.com/application/o/flags/" is not an https address`, `PLATFORM_API_URL: "http://flags.example.com" must be https`}},
		{"client secret twice", env("PLATFORM_API_OIDC_ISSUER", "https://id.example.com/", "PLATFORM_API_OIDC_CLIENT_ID", "console", "PLATFORM_API_URL", "https://flags.example.com",
			"PLATFORM_API_OIDC_CLIENT_SECRET", "s", "PLATFORM_API_OIDC_CLIENT_SECRET_FILE", "/nowhere"), nil, []string{"PLATFORM_API_OIDC_CLIENT_SECRET: is given, and PLATFORM_API_OIDC_CLIENT_SECRET_FILE too"}},
		{"one group for two roles", env("PLATFORM_API_READ_GROUP", "dezky-operators"), nil, []string{"PLATFORM_API_READ_GROUP"}},
		{"audiences", env("PLATFORM_API_OIDC_ISSUER", "https://id.example.com/", "PLATFORM_API_OIDC_CLIENT_ID", "console", "PLATFORM_API_OIDC_CLIENT_SECRET", "s", "PLATFORM_API_URL", "https://flags.example.com",
			"PLATFORM_API_JWT_AUDIENCES", "billing boss=https://id.example.com/#a service=ftp://id#a service=https://id.example.com/#b portal=https://id.example.com/#b portal=https://id.example.com/#console"), nil,
			[]string{`PLATFORM_API_JWT_AUDIENCES: "billing" is not of the form`, "the kind is one of operator, service, portal", `the issuer "ftp://id" is not an https address`, "are given twice",
				`"portal=https://id.example.com/#console" is the client by which operators sign in`}},
		{"proxies", env("PLATFORM_API_TRUSTED_PROXIES", "some"), nil, []string{`PLATFORM_API_TRUSTED_PROXIES: "some" is not a whole number from 0`}},
		{"origins", env("PLATFORM_API_CORS_ORIGINS", "https://app.example.com * app.example.com,https://app.example.com/path null https://bücher.example https://app.example.com:"), nil,
			[]string{`PLATFORM_API_CORS_ORIGINS: "*" is not an origin`, `"app.example.com" is not an origin`, `"https://app.example.com/path" is not an origin`, `"null" is not an origin`, `"https://bücher.example" is not an origin`, `"https://app.example.com:" is not an origin`}},
		{"Authentik without a token", env("PLATFORM_API_AUTHENTIK_URL", "http://id.example.com/"), nil,
			[]string{`PLATFORM_API_AUTHENTIK_URL: "http://id.example.com/" is not an https address`, "PLATFORM_API_AUTHENTIK_TOKEN: is missing"}},
		{"Authentik without an address", env("PLATFORM_API_AUTHENTIK_TOKEN", "a b"), nil,
			[]string{"PLATFORM_API_AUTHENTIK_URL: is missing", "PLATFORM_API_AUTHENTIK_TOKEN: is not a token"}},
		{"Authentik's API by a flag", env("PLATFORM_API_AUTHENTIK_TOKEN_FILE", "/nowhere/token"), []string{"-authentik-url", "https://id.example.com/api/v3"},
			[]string{"PLATFORM_API_AUTHENTIK_TOKEN_FILE: open /nowhere/token", `-authentik-url (PLATFORM_API_AUTHENTIK_URL): "https://id.example.com/api/v3" is to end before /api/`}},
		{"token", env(), []string{"token", "create"}, []string{"-name: is required", "-role: is required"}},
		{"token, all at once", env(), []string{"token", "create", "-name", "a b", "-role", "boss", "-env", "mars", "-expires", "soon"},
			[]string{"-expires: ", "-name: ", "-role: ", "-env: "}},
		{"token that has ended", env(), []string{"token", "create", "-name", "a", "-role", "read", "-expires", "0d"}, []string{"-expires: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, stdout, stderr := execute(t, test.getenv, test.args...)
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			if status != exitUsage || stdout != "" || len(lines) != len(test.want) {
				t.Fatalf("run(%q) = %d, stdout %q, %d lines on stderr, want %d, \"\", %d:\n%s", test.args, status, stdout, len(lines), exitUsage, len(test.want), stderr)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(lines[i], "platform-api: ") || !strings.Contains(lines[i], want) {
					t.Errorf("line %d = %q, want platform-api: …%s…", i, lines[i], want)
				}
			}
		})
	}
}

func TestHelpIsComplete(t *testing.T) {
	if out := must(t, "-h"); !strings.Contains(out, "token revoke ID") || !strings.Contains(out, "import FILE") {
		t.Errorf("-h lacks commands:\n%s", out)
	}
	for _, c := range commands {
		out := must(t, append(strings.Fields(c.name), "-h")...)
		for _, s := range c.settings {
			if !strings.Contains(out, "  -"+s.flag+" ") || !strings.Contains(out, s.variable) {
				t.Errorf("%s -h lacks -%s or %s:\n%s", c.name, s.flag, s.variable, out)
			}
		}
		if !strings.Contains(out, "-data-dir") {
			t.Errorf("%s has no -data-dir", c.name)
		}
	}
}

// TestDocumentsNameEverySetting holds README and operations.md against the program.
func TestDocumentsNameEverySetting(t *testing.T) {
	variables := regexp.MustCompile(`PLATFORM_API_[A-Z_]+`)
	want := map[string]bool{}
	for _, secret := range []string{sessionKeyVariable, clientSecretVariable, authentikTokenVariable} {
		want[secret], want[secret+"_FILE"] = true, true
	}
	for _, c := range commands {
		for _, s := range c.settings {
			if s.variable != "" {
				want[s.variable] = true
			}
		}
	}
	for _, name := range []string{"README.md", "docs/operations.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, v := range variables.FindAllString(string(text), -1) {
			got[v] = true
			if !want[v] {
				t.Errorf("%s speaks of %s, which is no setting", name, v)
			}
		}
		for v := range want {
			if !got[v] {
				t.Errorf("%s does not speak of %s", name, v)
			}
		}
	}
}

// With an identity provider there is no link, and the start does not wait for the provider.
func TestServeWithAnIdentityProvider(t *testing.T) {
	p := authtest.New(t, authtest.Options{Alg: "ES256"})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(authtest.Secret(authtest.ConsoleID)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	getenv := env("PLATFORM_API_OIDC_ISSUER", p.Issuer(), "PLATFORM_API_OIDC_CLIENT_ID", authtest.ConsoleID, "PLATFORM_API_OIDC_CLIENT_SECRET_FILE", secret,
		"PLATFORM_API_URL", "http://localhost:3001", "PLATFORM_API_READ_GROUP", "dezky-viewers", "PLATFORM_API_JWT_AUDIENCES", "service="+p.Issuer()+"#"+authtest.ServiceID)
	dir := t.TempDir()
	provider := func(s server) string {
		t.Helper()
		response, err := http.Get(s.base + "/ready")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var ready struct{ Status, IdentityProvider string }
		if err := json.NewDecoder(response.Body).Decode(&ready); err != nil || ready.Status != "ready" {
			t.Fatalf("GET /ready = %d %+v, %v", response.StatusCode, ready, err)
		}
		return ready.IdentityProvider
	}
	flags := func(s server, token string) int {
		t.Helper()
		r, err := http.NewRequest("GET", s.base+"/flags", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}

	p.Stop()
	s := begin(t, getenv, dir)
	if line := s.log.await("sign-in"); line["redirectURI"] != "http://localhost:3001/login/callback" || line["issuer"] != p.Issuer() {
		t.Errorf("log %v, want the redirect URI and the issuer", line)
	}
	s.log.await("ready")
	if got := provider(s); got != "away" {
		t.Errorf("/ready says that the provider is %q, want away", got)
	}
	token := p.AccessToken(authtest.ServiceID, authtest.ServiceSub(authtest.ServiceID))
	if got := flags(s, token); got != http.StatusServiceUnavailable {
		t.Errorf("a token whose issuer was never asked: %d, want 503", got)
	}
	if err := p.Restart(); err != nil {
		t.Fatal(err)
	}
	if status, got := flags(s, token), provider(s); status != http.StatusOK || got != "ok" {
		t.Errorf("the provider back, the token gets %d and /ready says %q, want 200 and ok", status, got)
	}
	if status := s.stop(); status != exitOK {
		t.Errorf("exit %d, want %d", status, exitOK)
	}
	if rest, err := io.ReadAll(s.out); err != nil || len(rest) > 0 {
		t.Errorf("stdout goes on with %q, %v, want no sign-in link", rest, err)
	}

	p.Stop()
	s = begin(t, getenv, dir)
	s.log.await("ready")
	if got := flags(s, token); got != http.StatusOK {
		t.Errorf("after a restart without the provider the token gets %d, want 200 by the kept keys", got)
	}
}

// A tenant that Authentik could not be told of while it was away is there once it is back, also in a later process.
func TestServeProvisions(t *testing.T) {
	authentik := provisioningtest.New(t)
	authentik.Down()
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte(provisioningtest.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	getenv := env("PLATFORM_API_AUTHENTIK_URL", authentik.URL, "PLATFORM_API_AUTHENTIK_TOKEN_FILE", secret)
	dir := t.TempDir()
	s := begin(t, getenv, dir)
	s.log.await("ready")
	token := strings.TrimSpace(must(t, "token", "create", "-name", "ops", "-role", "operator", "-data-dir", dir))
	status, body := s.ask(t, token, "POST", "/tenants/dezky/reconcile", "")
	if status != http.StatusOK || !strings.Contains(body, `"authentik":"error"`) || !strings.Contains(body, "can't be reached") {
		t.Errorf("reconcile with Authentik away = %d %s, want 200, error, and why", status, body)
	}
	if status, body = s.ask(t, token, "DELETE", "/tenants/dezky", ""); status != http.StatusNoContent {
		t.Errorf("DELETE with Authentik away = %d %s, want 204", status, body)
	}
	if status, body = s.ask(t, token, "POST", "/tenants", `{"slug":"acme","name":"Acme","plan":"starter"}`); status != http.StatusCreated || !strings.Contains(body, `"authentik":"pending"`) {
		t.Errorf("POST /tenants with Authentik away = %d %s, want 201 and pending", status, body)
	}
	s.stop()

	authentik.Put(provisioningtest.Group{Name: "tenant:dezky"})
	authentik.Up()
	s = begin(t, getenv, dir)
	for range 2 {
		s.log.await("tenant provisioned")
	}
	if groups := authentik.Groups(""); len(groups) != 1 || groups[0].Name != "tenant:acme" {
		t.Errorf("there are the groups %v, want tenant:acme alone", groups)
	}
}

// TestBlueprint holds the blueprint for Authentik against the program, and against itself.
func TestBlueprint(t *testing.T) {
	content, err := os.ReadFile("docs/authentik-blueprint.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &yaml.Node{}); err != nil {
		t.Fatalf("it is no YAML: %v", err)
	}
	text := string(content)
	want := []string{"%s" + auth.CallbackPath + `"`, `%s/login"`, "%s" + auth.BackChannelPath + `"`, "operator_group: " + operatorSetting.otherwise + " "}
	for _, m := range regexp.MustCompile(`!(Context|KeyOf) ([a-z_-]+)`).FindAllStringSubmatch(text, -1) {
		if m[1] == "Context" {
			want = append(want, "\n  "+m[2]+": ")
		} else {
			want = append(want, "\n    id: "+m[2]+"\n")
		}
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("the blueprint lacks %q", w)
		}
	}
}

// Metrics and profiles have a listener of their own, which ends with the server.
func TestServeMetrics(t *testing.T) {
	s := begin(t, env(), t.TempDir(), "-metrics-addr", "127.0.0.1:0")
	address, _ := s.log.await("metrics")["url"].(string)
	s.log.await("ready")
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(text), "\nplatform_api_ready 1\n") {
		t.Errorf("GET %s = %d %.200s, %v, want platform_api_ready 1", address, response.StatusCode, text, err)
	}
	if status := s.stop(); status != exitOK {
		t.Errorf("exit %d, want %d", status, exitOK)
	}
	if response, err := http.Get(address); err == nil {
		response.Body.Close()
		t.Errorf("after the stop %s still answers", address)
	}
}

func TestVersion(t *testing.T) {
	out := must(t, "version")
	for _, want := range []string{"platform-api ", "commit ", "go1.", "SQLite 3."} {
		if !strings.Contains(out, want) {
			t.Errorf("version = %q, want %q in it", out, want)
		}
	}
}

// server is a running appliance.
type server struct {
	base   string
	out    *bufio.Reader // stdout behind the line that tells the address
	secret string        // of the sign-in link that it printed
	stop   func() int    // ends it as SIGTERM does, and returns the exit status
	log    *logLines
}

// logLines are the JSON lines on stderr, and wait for the one that is asked for.
type logLines struct {
	t     testing.TB
	lines chan map[string]any
	raw   *bytes.Buffer
}

func (l *logLines) await(message string) map[string]any {
	l.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case line, open := <-l.lines:
			if !open {
				l.t.Fatalf("the log ended before %q:\n%s", message, l.raw)
			}
			if line["msg"] == message {
				return line
			}
		case <-deadline:
			l.t.Fatalf("no %q in the log", message)
		}
	}
}

func readLog(t testing.TB, from io.Reader) *logLines {
	l := &logLines{t, make(chan map[string]any, 100_000), &bytes.Buffer{}}
	go func() {
		defer close(l.lines)
		for in := bufio.NewScanner(from); in.Scan(); {
			var line map[string]any
			if json.Unmarshal(in.Bytes(), &line) != nil {
				line = map[string]any{"msg": "not JSON: " + in.Text()}
			}
			l.lines <- line
		}
	}()
	return l
}

var signIn = regexp.MustCompile(`^Sign in: (http://\S+/login/link)#(\S+)\n$`)

var listening = regexp.MustCompile(`^Listening on (http://\S+)\n$`)

// start runs `serve` in this process until the test ends.
func start(t *testing.T, dir string, args ...string) server {
	t.Helper()
	s := begin(t, env(), dir, args...)
	link, err := s.out.ReadString('\n')
	if m := signIn.FindStringSubmatch(link); err != nil || m == nil || m[1] != s.base+"/login/link" {
		t.Fatalf("stdout = %q, %v, want Sign in: %s/login/link#…", link, err, s.base)
	} else {
		s.secret = m[2]
	}
	s.log.await("ready")
	return s
}

// begin is start in an environment, as far as that the server listens.
func begin(t *testing.T, getenv func(string) string, dir string, args ...string) server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	outR, outW, err := os.Pipe() // has room, so that printing a link need not wait for a reader
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outR.Close() })
	errR, errW := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"serve", "-addr", "127.0.0.1:0", "-data-dir", dir}, args...), getenv, outW, errW)
		outW.Close()
		errW.Close()
	}()
	s := server{log: readLog(t, errR)}
	stopped := -1
	s.stop = func() int {
		if stopped < 0 {
			cancel()
			stopped = <-status
		}
		return stopped
	}
	t.Cleanup(func() { s.stop() })
	s.out = bufio.NewReader(outR)
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("serve did not listen: %v; exit %d", err, s.stop())
	}
	match := listening.FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("stdout = %q, want Listening on http://…", line)
	}
	s.base = match[1]
	return s
}

// Pages of the origins that are configured may evaluate, and HTTP/2 in the clear is spoken to those who begin
// with it.
func TestServeOriginsAndHTTP2(t *testing.T) {
	t.Parallel()
	s := begin(t, env("PLATFORM_API_CORS_ORIGINS", "https://App.example.com:443/, http://localhost:5173"), t.TempDir())
	s.log.await("ready")
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	for name, client := range map[string]*http.Client{"HTTP/1.1": {}, "HTTP/2.0": {Transport: &http.Transport{Protocols: &h2}}} {
		for origin, want := range map[string]string{"https://app.example.com": "https://app.example.com", "http://localhost:5173": "http://localhost:5173", "https://evil.example": ""} {
			r, err := http.NewRequestWithContext(t.Context(), "OPTIONS", s.base+"/ofrep/v1/evaluate/flags", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", origin)
			r.Header.Set("Access-Control-Request-Method", "POST")
			response, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if got := response.Header.Get("Access-Control-Allow-Origin"); got != want || response.Proto != name {
				t.Errorf("%s asked about %s: %q by %s, want %q", name, origin, got, response.Proto, want)
			}
		}
		client.CloseIdleConnections()
	}
}

// ask sends a request with a token and returns status and body.
func (s server) ask(t *testing.T, token, method, path, body string) (int, string) {
	t.Helper()
	status, text, err := request(s.base, token, method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, text
}

func request(base, token, method, path, body string) (int, string, error) {
	r, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// browser is a client that keeps cookies and follows no redirect.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// post sends a form and returns the status and where it leads.
func post(t *testing.T, c *http.Client, address string, form url.Values) (int, string) {
	t.Helper()
	response, err := c.PostForm(address, form)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header.Get("Location")
}

func TestSignInByLink(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	maja, other := browser(t), browser(t)
	if status, _ := post(t, maja, s.base+"/login/link", url.Values{"token": {"wrong"}}); status != http.StatusForbidden {
		t.Errorf("a wrong secret = %d, want 403", status)
	}
	status, to := post(t, maja, s.base+"/login/link", url.Values{"token": {s.secret}, "return_to": {"/operator/flags/jmap_native_v2?q=j"}})
	if status != http.StatusSeeOther || to != "/operator/flags/jmap_native_v2?q=j" {
		t.Fatalf("the secret = %d to %q, want 303 to where the person wanted to go", status, to)
	}
	if status, _ := post(t, other, s.base+"/login/link", url.Values{"token": {s.secret}}); status != http.StatusForbidden {
		t.Errorf("the secret again = %d, want 403", status)
	}
	get := func(c *http.Client, path string) (int, string) {
		t.Helper()
		response, err := c.Get(s.base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	if status, body := get(maja, "/operator/flags"); status != 200 || !strings.Contains(body, "operator@localhost") {
		t.Errorf("the console with the session = %d, want it and the person's name", status)
	}
	if status, body := get(maja, "/api/flags"); status != 200 || !strings.Contains(body, "gdpr_export_v2") {
		t.Errorf("/api/flags with the session = %d %s, want the flags", status, body)
	}
	if status, _ := get(maja, "/flags"); status != http.StatusUnauthorized {
		t.Errorf("/flags with the session = %d, want 401: cookies count under /api alone", status)
	}

	// A new link is printed on request, and the session outlives a restart: its key is kept.
	if status, _ := post(t, other, s.base+"/login", nil); status != 200 {
		t.Errorf("a new link = %d, want 200", status)
	}
	line, err := s.out.ReadString('\n')
	if m := signIn.FindStringSubmatch(line); err != nil || m == nil || m[2] == s.secret {
		t.Errorf("after the request for a new link stdout = %q, %v", line, err)
	}
	if info, err := os.Stat(filepath.Join(dir, sessionKeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v, want it for the owner alone", sessionKeyFile, info, err)
	}
	address := strings.TrimPrefix(s.base, "http://")
	s.stop()
	s = start(t, dir, "-addr", address)
	if status, _ := get(maja, "/operator/flags"); status != 200 {
		t.Errorf("the session after a restart = %d, want 200", status)
	}
	if status, to := post(t, maja, s.base+"/logout", nil); status != http.StatusSeeOther || to != "/login" {
		t.Errorf("sign-out = %d to %q, want 303 to /login", status, to)
	}
	if status, _ := get(maja, "/operator/flags"); status != http.StatusSeeOther {
		t.Errorf("the console after sign-out = %d, want 303 to the sign-in", status)
	}
}

func TestForgedHost(t *testing.T) {
	s := start(t, t.TempDir())
	for _, path := range []string{"/login", "/login/link", "/operator/flags"} {
		r, err := http.NewRequest(http.MethodGet, s.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example"
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("GET %s as evil.example = %d, want 403", path, response.StatusCode)
		}
	}
}

func TestNoSignInBeyondLoopback(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"serve", "-addr", ":0", "-data-dir", t.TempDir()}, env(), outW, errW)
		outW.Close()
		errW.Close()
	}()
	log := readLog(t, errR)
	out := bufio.NewReader(outR)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	log.await("ready")
	port := strings.TrimSpace(line[strings.LastIndex(line, ":")+1:])
	response, err := http.Get("http://127.0.0.1:" + port + "/login")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || !strings.Contains(string(body), "Nobody can sign in here") {
		t.Errorf("/login on every address = %s, %v, want that there is no sign-in", body, err)
	}
	if status, _ := post(t, browser(t), "http://127.0.0.1:"+port+"/login", nil); status != http.StatusForbidden {
		t.Errorf("POST /login = %d, want 403", status)
	}
	cancel()
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("stdout goes on with %q, %v; want no sign-in link", rest, err)
	}
	if status := <-done; status != exitOK {
		t.Errorf("exit %d, want 0", status)
	}
}

// TestNewcomer goes the README's way in an empty folder: a token, a start, the ten seeds, a change, and
// the same answers after a restart.
func TestNewcomer(t *testing.T) {
	dir := t.TempDir()
	token := strings.TrimSuffix(must(t, "token", "create", "-data-dir", dir, "-name", "me", "-role", "operator"), "\n")
	if !regexp.MustCompile(`^dzk_\S{40,}$`).MatchString(token) {
		t.Fatalf("token create = %q, want the token alone on a line", token)
	}
	s := start(t, dir)

	_, body := s.ask(t, token, "POST", "/flags/evaluate", `{"tenantSlug":"dezky"}`)
	var seeds map[string]bool
	if err := json.Unmarshal([]byte(body), &seeds); err != nil || len(seeds) != 10 {
		t.Fatalf("evaluate = %s, want ten seeds", body)
	}
	for key, on := range seeds {
		if on {
			t.Errorf("the seed %s is on", key)
		}
	}

	status, body := s.ask(t, token, "PATCH", "/flags/jmap_native_v2", `{"state":"rollout","pct":25,"note":"pilot"}`)
	var flag struct {
		Version int
		History []struct {
			Actor, Action, Note string
			Changes             map[string]struct{ From, To any }
		}
	}
	if err := json.Unmarshal([]byte(body), &flag); status != 200 || err != nil {
		t.Fatalf("PATCH = %d %s", status, body)
	}
	if h := flag.History[0]; flag.Version != 2 || h.Actor != "token:me" || h.Action != "updated" || h.Note != "pilot" ||
		h.Changes["pct"].To != 25.0 || h.Changes["state"].From != "off" {
		t.Errorf("history = %+v, want the change by token:me", h)
	}

	_, before := s.ask(t, token, "POST", "/flags/evaluate", `{"tenantSlug":"dezky"}`)
	if _, again := s.ask(t, token, "POST", "/flags/evaluate", `{"tenantSlug":"dezky"}`); again != before {
		t.Errorf("evaluate = %s, then %s", before, again)
	}
	if status := s.stop(); status != exitOK {
		t.Errorf("stop = exit %d, want 0", status)
	}
	s = start(t, dir)
	if _, after := s.ask(t, token, "POST", "/flags/evaluate", `{"tenantSlug":"dezky"}`); after != before {
		t.Errorf("evaluate after a restart = %s, want %s", after, before)
	}
}

func TestTokensBesideARunningServer(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	token := strings.TrimSpace(must(t, "token", "create", "-data-dir", dir, "-name", "ci", "-role", "read", "-expires", "90d"))
	if status, body := s.ask(t, token, "GET", "/flags", ""); status != 200 {
		t.Fatalf("a token made beside the server: %d %s, want 200", status, body)
	}
	if status, _, stderr := execute(t, env(), "token", "create", "-data-dir", dir, "-name", "ci", "-role", "read"); status != exitFailure || !strings.Contains(stderr, `"ci" exists`) {
		t.Errorf("the name again = exit %d, %q, want 1 and why", status, stderr)
	}
	list := must(t, "token", "list", "-data-dir", dir)
	id := strings.Fields(strings.Split(list, "\n")[1])[0]
	if strings.Contains(list, token) || !strings.Contains(list, "active") {
		t.Errorf("token list = %s, want it active and without its secret", list)
	}
	must(t, "token", "revoke", "-data-dir", dir, id)
	deadline := time.Now().Add(time.Second)
	for {
		status, _ := s.ask(t, token, "GET", "/flags", "")
		if status == 401 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a revoked token is still good after a second: %d", status)
		}
	}
	if status, _, stderr := execute(t, env(), "token", "revoke", "-data-dir", dir, "nope"); status != exitFailure || !strings.Contains(stderr, `"nope"`) {
		t.Errorf("revoke of an unknown id = exit %d, %q, want 1 and the id", status, stderr)
	}
}

func TestNoDatabaseIsMadeByReading(t *testing.T) {
	for _, args := range [][]string{{"token", "list"}, {"token", "revoke", "x"}, {"export"}, {"verify"}} {
		dir := filepath.Join(t.TempDir(), "none")
		status, _, stderr := execute(t, env("PLATFORM_API_DATA_DIR", dir), args...)
		if status != exitFailure || !strings.Contains(stderr, "no database in "+dir) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v = exit %d, %q, want 1 and one line", args, status, stderr)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%v made %s", args, dir)
		}
	}
}

func TestOneServerForADirectory(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	document := filepath.Join(t.TempDir(), "export.json")
	if err := os.WriteFile(document, []byte(must(t, "export", "-data-dir", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve", "-addr", "127.0.0.1:0"}, {"import", document}} {
		status, _, stderr := execute(t, env(), append(args, "-data-dir", dir)...)
		if want := fmt.Sprintf(`in use by "platform-api serve", process %d`, os.Getpid()); status != exitFailure || !strings.Contains(stderr, want) {
			t.Errorf("%v beside a server = exit %d, %q, want 1 and %q", args, status, stderr, want)
		}
	}
	if s.stop() != exitOK {
		t.Error("the server did not stop well")
	}
	must(t, "import", "-data-dir", dir, document)
}

func TestAddressInUse(t *testing.T) {
	s := start(t, t.TempDir())
	status, _, stderr := execute(t, env(), "serve", "-addr", strings.TrimPrefix(s.base, "http://"), "-data-dir", t.TempDir())
	if status != exitFailure || !strings.Contains(stderr, "address already in use") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a taken address = exit %d, %q, want 1 and one line", status, stderr)
	}
}

func TestExportImport(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	start(t, first, "-demo").stop()
	exported := must(t, "export", "-data-dir", first)
	file := filepath.Join(t.TempDir(), "export.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(exported)

	must(t, "import", "-data-dir", second, "-dry-run", file)
	must(t, "import", "-data-dir", second, file)
	if again := must(t, "export", "-data-dir", second); again != exported {
		t.Errorf("export, import, export is not the identity:\n%s\nwant\n%s", again, exported)
	}
	if out := must(t, "import", "-data-dir", second, file); out != "0 changes\n" {
		t.Errorf("the same again = %q, want no changes", out)
	}

	write(`{"flags":[{"key":"gdpr_export_v2","state":"targeted","scope":{"tenantSlugs":["dezky"]}}]}`)
	out := must(t, "import", "-data-dir", second, "-dry-run", file)
	for _, want := range []string{"updated flag gdpr_export_v2", `state "off" -> "targeted"`, "production: 1 gains it: dezky; nobody loses it", "dry run"} {
		if !strings.Contains(out, want) {
			t.Errorf("dry run = %s\nwant %q in it", out, want)
		}
	}
	if now := must(t, "export", "-data-dir", second); now != exported {
		t.Error("a dry run changed something")
	}

	write(`{"flags":[{"key":"gdpr_export_v2","pct":101},{"key":"Bad"}],"tenants":[{"slug":"x","name":"X","plan":"gold"}]}`)
	status, _, stderr := execute(t, env(), "import", "-data-dir", second, file)
	for _, want := range []string{"flags[0].pct", "flags[1].key", "tenants[0].plan", "nothing was imported"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("a bad document = %s\nwant %q in it", stderr, want)
		}
	}
	if status != exitFailure || must(t, "export", "-data-dir", second) != exported {
		t.Errorf("a bad document = exit %d, or it changed something", status)
	}

	// A directory first filled by import counts as seeded: what the document lacks does not come back.
	third := t.TempDir()
	write(`{"partners":[],"tenants":[],"flags":[{"key":"only_one"}]}`)
	must(t, "import", "-data-dir", third, file)
	start(t, third).stop()
	if out := must(t, "export", "-data-dir", third); strings.Contains(out, "dezky") || strings.Contains(out, "gdpr") || !strings.Contains(out, "only_one") {
		t.Errorf("after import and a start: %s, want only_one alone", out)
	}
}

// process starts the program as a process of its own.
func process(t *testing.T, dir string) (*exec.Cmd, server) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "serve", "-addr", "127.0.0.1:0", "-data-dir", dir)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	s := server{log: readLog(t, stderr), out: bufio.NewReader(stdout)}
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the process did not listen: %v", err)
	}
	s.base = listening.FindStringSubmatch(line)[1]
	s.log.await("ready")
	return cmd, s
}

func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd, s := process(t, t.TempDir())
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		s.log.await("stopped")
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v, want exit 0", signal, err)
		}
	}
}

// TestKilled kills the process while clients write: every change that was acknowledged is there afterwards,
// with its history.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	token := strings.TrimSpace(must(t, "token", "create", "-data-dir", dir, "-name", "storm", "-role", "operator"))
	for round := range 3 {
		cmd, s := process(t, dir)
		acknowledged := make(chan [2]string, 1000)
		const writers = 4
		done := make(chan struct{}, writers)
		for w := range writers {
			go func() {
				defer func() { done <- struct{}{} }()
				for i := 0; ; i++ {
					key, pct := fmt.Sprintf("storm_%d_%d", round, w), fmt.Sprint(i%101)
					method, path, body := "PATCH", "/flags/"+key, `{"state":"rollout","pct":`+pct+`,"description":"`+fmt.Sprint(i)+`"}`
					if i == 0 {
						method, path, body = "POST", "/flags", `{"key":"`+key+`","description":"0"}`
					}
					status, _, err := request(s.base, token, method, path, body)
					if err != nil || status >= 300 {
						return
					}
					acknowledged <- [2]string{key, fmt.Sprint(i)}
				}
			}()
		}
		last := map[string]string{}
		for range 200 {
			a := <-acknowledged
			last[a[0]] = a[1]
		}
		cmd.Process.Kill()
		cmd.Wait()
		for range writers {
			for ended := false; !ended; {
				select {
				case a := <-acknowledged:
					last[a[0]] = a[1]
				case <-done:
					ended = true
				}
			}
		}
		for len(acknowledged) > 0 {
			a := <-acknowledged
			last[a[0]] = a[1]
		}

		s = start(t, dir)
		for key, want := range last {
			_, body := s.ask(t, token, "GET", "/flags/"+key, "")
			var f struct {
				Description string
				Version     int
				History     []struct{ Version int }
			}
			if err := json.Unmarshal([]byte(body), &f); err != nil {
				t.Fatal(err)
			}
			// One more may have been committed and not acknowledged.
			if n := f.Version - 1; fmt.Sprint(n) != f.Description || f.Description != want && fmt.Sprint(n-1) != want || f.History[0].Version != f.Version {
				t.Errorf("%s after kill -9: description %s, version %d, history %v; the last acknowledged is %s", key, f.Description, f.Version, f.History, want)
			}
		}
		if s.stop() != exitOK {
			t.Error("the server did not stop well")
		}
	}
}
