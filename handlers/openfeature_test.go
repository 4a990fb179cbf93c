package handlers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/open-feature/go-sdk-contrib/providers/ofrep"
	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// sdkPatience is how long a test waits for an SDK in another process.
const sdkPatience = 20 * time.Second

// details is what an SDK tells about a flag.
type details struct {
	Value     any            `json:"value"`
	Reason    string         `json:"reason"`
	Variant   string         `json:"variant"`
	Metadata  map[string]any `json:"flagMetadata"`
	ErrorCode string         `json:"errorCode"`
}

// same compares what SDKs agree on: with an error, variant and metadata are theirs to choose.
func (d details) same(o details) bool {
	if d.ErrorCode != "" {
		d.Variant, d.Metadata, o.Variant, o.Metadata = "", nil, "", nil
	}
	return reflect.DeepEqual(d, o)
}

// sdkAsk is one flag as an application asks for it.
type sdkAsk struct {
	flag    string
	text    bool // as a string, which no flag is
	context map[string]any
}

// sdkCase is what must come of it.
type sdkCase struct {
	sdkAsk
	want details
	bulk bool // what a bulk answer tells too, which clients in browsers ask for
}

// sdkCases are asked of every SDK, of the registry with three flags more. Each gives false or "none" itself
// if the flag can't be told.
func (s *running) sdkCases(t testing.TB) []sdkCase {
	t.Helper()
	s.registry(t)
	s.want(t, http.StatusCreated, "POST /flags", `{"key":"archive","description":"Not yet","state":"off"}`)
	s.want(t, http.StatusCreated, "POST /flags", `{"key":"beta","state":"targeted","scope":{"plans":["business"]}}`)
	s.want(t, http.StatusCreated, "POST /flags", `{"key":"sharing","state":"targeted","scope":{"partnerSlugs":["nordhost"],"environments":["development"]}}`)
	bucket := func(id, key string) float64 { return float64(flags.Bucket(id, key)) }
	in := func(tenant, environment string) map[string]any {
		c := map[string]any{"targetingKey": tenant}
		if environment != "" {
			c["environment"] = environment
		}
		return c
	}
	with := func(c map[string]any, name string, value any) map[string]any {
		c[name] = value
		return c
	}
	told := func(value bool, reason string, metadata map[string]any) details {
		variant := "off"
		if value {
			variant = "on"
		}
		metadata["version"] = 1.0
		return details{Value: value, Reason: reason, Variant: variant, Metadata: metadata}
	}
	failed := func(code string) details { return details{Value: false, Reason: "ERROR", ErrorCode: code} }
	type m = map[string]any
	stranger := func(metadata m) m { return with(metadata, "tenantRegistered", false) }
	const yes, no = true, false
	return []sdkCase{
		{sdkAsk{"archive", no, in("acme", "")}, told(false, "DISABLED", m{"description": "Not yet"}), yes},
		{sdkAsk{"calendar", no, in("acme", "")}, told(true, "STATIC", m{}), yes},
		{sdkAsk{"beta", no, in("acme", "")}, told(true, "TARGETING_MATCH", m{}), yes},
		{sdkAsk{"beta", no, in("globex", "")}, told(false, "DEFAULT", m{"axis": "plans"}), yes},
		{sdkAsk{"mail_rules", no, in("acme", "")}, told(false, "DEFAULT", m{"axis": "tenantSlugs"}), yes},
		{sdkAsk{"mail_rules", no, in("globex", "")}, told(false, "DEFAULT", m{"axis": "partnerSlugs"}), yes},
		{sdkAsk{"search", no, in("acme", "")}, told(false, "DEFAULT", m{"description": "New search", "axis": "environments"}), yes},
		{sdkAsk{"search", no, in("acme", "staging")}, told(bucket("t1", "search") < 50, "SPLIT", m{"description": "New search", "bucket": bucket("t1", "search")}), yes},
		{sdkAsk{"search", no, in("globex", "staging")}, told(bucket("t2", "search") < 50, "SPLIT", m{"description": "New search", "bucket": bucket("t2", "search")}), yes},
		{sdkAsk{"search", no, with(in("initech", "staging"), "seats", 12)}, told(bucket("t3", "search") < 50, "SPLIT", m{"description": "New search", "bucket": bucket("t3", "search")}), yes},
		// What the registry says of its tenants, a context does not change.
		{sdkAsk{"beta", no, with(in("globex", ""), "plan", "business")}, told(false, "DEFAULT", m{"axis": "plans"}), yes},

		{sdkAsk{"beta", no, in("stranger", "")}, told(false, "DEFAULT", stranger(m{"axis": "plans"})), yes},
		{sdkAsk{"beta", no, with(in("stranger", ""), "plan", "business")}, told(true, "TARGETING_MATCH", stranger(m{})), yes},
		{sdkAsk{"sharing", no, with(in("stranger", "development"), "partner", "nordhost")}, told(true, "TARGETING_MATCH", stranger(m{})), yes},
		{sdkAsk{"search", no, in("stranger", "staging")}, told(bucket("stranger", "search") < 50, "SPLIT", stranger(m{"description": "New search", "bucket": bucket("stranger", "search")})), yes},

		{sdkAsk{"nothing", no, in("acme", "")}, failed("FLAG_NOT_FOUND"), yes},
		{sdkAsk{"Not-A-Key", no, in("acme", "")}, failed("FLAG_NOT_FOUND"), yes},
		{sdkAsk{"calendar", yes, in("acme", "")}, details{Value: "none", Reason: "ERROR", ErrorCode: "TYPE_MISMATCH"}, yes},

		{sdkAsk{"calendar", no, m{"environment": "staging"}}, failed("TARGETING_KEY_MISSING"), no},
		{sdkAsk{"calendar", no, in("", "staging")}, failed("TARGETING_KEY_MISSING"), no},
		{sdkAsk{"calendar", no, in("acme", "moon")}, failed("INVALID_CONTEXT"), no},
		{sdkAsk{"calendar", no, with(in("acme", ""), "environment", 5)}, failed("INVALID_CONTEXT"), no},
		{sdkAsk{"calendar", no, with(in("stranger", ""), "plan", []string{"business"})}, failed("INVALID_CONTEXT"), no},
		{sdkAsk{"calendar", no, with(in("stranger", ""), "partner", true)}, failed("INVALID_CONTEXT"), no},
	}
}

// goSDK is a client of OpenFeature's Go SDK with the OFREP provider.
func goSDK(t testing.TB, address string, credential func(address string) *ofrep.Provider) *openfeature.Client {
	t.Helper()
	api := isolated.NewAPI()
	t.Cleanup(func() {
		if err := api.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := api.SetProviderAndWait(t.Context(), credential(address)); err != nil {
		t.Fatal(err)
	}
	return api.NewClient()
}

// bearerToken and apiKey are the two ways in which the Go provider shows a token.
func bearerToken(secret string) func(string) *ofrep.Provider {
	return func(address string) *ofrep.Provider { return ofrep.NewProvider(address, ofrep.WithBearerToken(secret)) }
}

func apiKey(secret string) func(string) *ofrep.Provider {
	return func(address string) *ofrep.Provider { return ofrep.NewProvider(address, ofrep.WithApiKeyAuth(secret)) }
}

// goDetails asks the Go SDK, which gives otherwise if the flag can't be told. An error says its code again.
func goDetails(t testing.TB, client *openfeature.Client, ask sdkAsk, otherwise bool) details {
	t.Helper()
	attributes := map[string]any{}
	key := ""
	for name, value := range ask.context {
		if name == "targetingKey" {
			key = value.(string)
		} else {
			attributes[name] = value
		}
	}
	evaluation := openfeature.NewEvaluationContext(key, attributes)
	var value any
	var told openfeature.EvaluationDetails
	if ask.text {
		d, _ := client.StringValueDetails(t.Context(), ask.flag, "none", evaluation)
		value, told = d.Value, d.EvaluationDetails
	} else {
		d, _ := client.BooleanValueDetails(t.Context(), ask.flag, otherwise, evaluation)
		value, told = d.Value, d.EvaluationDetails
	}
	return details{value, string(told.Reason), told.Variant, told.FlagMetadata, string(told.ErrorCode)}
}

func TestOpenFeatureGo(t *testing.T) {
	t.Parallel()
	s := startWitnessed(t)
	cases := s.sdkCases(t)
	s.token(t, db.NewToken{Name: "pinned", Role: "evaluate", Environment: "staging"})
	client := goSDK(t, s.proxy.URL, bearerToken(s.tokens["evaluate"]))
	for _, c := range cases {
		if got := goDetails(t, client, c.sdkAsk, false); !c.want.same(got) {
			t.Errorf("%s for %s: %s, want %s", c.flag, show(c.context), show(got), show(c.want))
		}
	}
	// Of a flag that is off, this provider says what the application said itself.
	off := sdkAsk{flag: "archive", context: map[string]any{"targetingKey": "acme"}}
	if got := goDetails(t, client, off, true); got.Value != true || got.Reason != "DISABLED" || got.Variant != "off" {
		t.Errorf("archive, which is off, with the default true: %s, want true, DISABLED, off", show(got))
	}

	// Credentials.
	calendar := sdkAsk{flag: "calendar", context: map[string]any{"targetingKey": "acme"}}
	elsewhere := sdkAsk{flag: "calendar", context: map[string]any{"targetingKey": "acme", "environment": "production"}}
	search := sdkAsk{flag: "search", context: map[string]any{"targetingKey": "acme"}}
	for _, c := range []struct {
		name       string
		credential func(string) *ofrep.Provider
		ask        sdkAsk
		value      any
		reason     string
		code       string
		status     string
	}{
		{"API key", apiKey(s.tokens["evaluate"]), calendar, true, "STATIC", "", "single 200"},
		{"token of an operator", bearerToken(s.tokens["operator"]), calendar, true, "STATIC", "", "single 200"},
		{"bad token", bearerToken("dzk_" + s.tokens["evaluate"][4:20]), calendar, false, "ERROR", "GENERAL", "single 401"},
		{"bad API key", apiKey("secret"), calendar, false, "ERROR", "GENERAL", "single 401"},
		{"token for staging, asking for production", bearerToken(s.tokens["pinned"]), elsewhere, false, "ERROR", "GENERAL", "single 403"},
		{"token for staging, asking for no environment", bearerToken(s.tokens["pinned"]), search, flags.Bucket("t1", "search") < 50, "SPLIT", "", "single 200"},
	} {
		before := s.witness.count(c.status)
		got := goDetails(t, goSDK(t, s.proxy.URL, c.credential), c.ask, false)
		if got.Value != c.value || got.Reason != c.reason || got.ErrorCode != c.code || s.witness.count(c.status) != before+1 {
			t.Errorf("%s: %s after %s, want %v, %s %s", c.name, show(got), c.status, c.value, c.reason, c.code)
		}
	}
}

// Every flag of the vectors, for some of their tenants in each environment, by the Go SDK.
func TestOpenFeatureVectors(t *testing.T) {
	t.Parallel()
	s := startWitnessed(t)
	v := s.vectors(t)
	client := goSDK(t, s.proxy.URL, bearerToken(s.tokens["evaluate"]))
	asked := 0
	for _, c := range v.Cases[:9] { // three tenants, each in three environments
		for key, want := range c.Expect {
			asked++
			ask := sdkAsk{flag: key, context: map[string]any{"targetingKey": c.TenantSlug, "environment": c.Environment}}
			if got := goDetails(t, client, ask, false); got.Value != want || got.ErrorCode != "" {
				t.Errorf("%s for %s in %s: %s, want %t", key, c.TenantSlug, c.Environment, show(got), want)
			}
		}
	}
	if n := s.witness.count("single 200"); asked != 9*32 || n != asked {
		t.Errorf("asked %d times and answered %d times, want %d", asked, n, 9*32)
	}
}

// nodeModules finds the directory of OpenFeature's packages for Node. Where they are missing the test is
// skipped, but fails in CI.
func nodeModules(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("testdata/openfeature/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	_, err = exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "@openfeature"))
	}
	if err != nil {
		err = fmt.Errorf("no OpenFeature on Node (npm ci in handlers/testdata/openfeature brings it): %w", err)
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return dir
}

// nodeSDK is OpenFeature's SDK in a process of its own, which ends with the test.
type nodeSDK struct {
	stdin   io.Writer
	answers chan nodeLine
	events  chan nodeLine
	calls   int
}

// nodeLine is what it says: the answer to a call, or an event.
type nodeLine struct {
	ID           int             `json:"id"`
	Result       json.RawMessage `json:"result"`
	Error        string          `json:"error"`
	Event        string          `json:"event"`
	FlagsChanged []string        `json:"flagsChanged"`
	Message      string          `json:"message"`
}

// startNode starts the driver with the SDK for servers or the one for the web.
func startNode(t testing.TB, sdk, address, token string) *nodeSDK {
	t.Helper()
	dir := filepath.Dir(nodeModules(t))
	command := exec.CommandContext(t.Context(), "node", "driver.mjs", sdk)
	command.Dir, command.Env = dir, append(os.Environ(), "URL="+address, "TOKEN="+token)
	stderr := &buffer{}
	command.Stderr = stderr
	stdin, err := command.StdinPipe() // node ends when it closes, even if this process is killed
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	n := &nodeSDK{stdin: stdin, answers: make(chan nodeLine, 1), events: make(chan nodeLine, 256)}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(n.answers)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var line nodeLine
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Errorf("node says %q: %v", lines.Text(), err)
			} else if line.Event != "" {
				n.events <- line
			} else {
				n.answers <- line
			}
		}
	})
	t.Cleanup(func() {
		stdin.Close()
		reading.Wait()
		command.Wait() // with an error: it was killed
		if t.Failed() {
			t.Logf("node: %s", stderr)
		}
	})
	return n
}

// call calls the SDK. An error is what the call threw.
func (n *nodeSDK) call(t testing.TB, name string, args map[string]any) (json.RawMessage, error) {
	t.Helper()
	n.calls++
	line := map[string]any{"id": n.calls, "call": name}
	for k, v := range args {
		line[k] = v
	}
	if _, err := io.WriteString(n.stdin, show(line)+"\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case a, ok := <-n.answers:
		if !ok || a.ID != n.calls {
			t.Fatalf("call %d, %s, was not answered, but %s", n.calls, name, show(a))
		}
		if a.Error != "" {
			return nil, fmt.Errorf("%s", a.Error)
		}
		return a.Result, nil
	case <-time.After(sdkPatience):
		t.Fatalf("call %d, %s, was not answered", n.calls, name)
		return nil, nil
	}
}

// details asks for a flag.
func (n *nodeSDK) details(t testing.TB, ask sdkAsk) details {
	t.Helper()
	kind, args := "boolean", map[string]any{"flag": ask.flag, "otherwise": false, "context": ask.context}
	if ask.text {
		kind, args["otherwise"] = "string", "none"
	}
	result, err := n.call(t, kind, args)
	if err != nil {
		t.Fatal(err)
	}
	var d details
	if err := json.Unmarshal(result, &d); err != nil {
		t.Fatalf("%v in %s", err, result)
	}
	return d
}

func TestOpenFeatureNode(t *testing.T) {
	t.Parallel()
	s := startWitnessed(t)
	cases := s.sdkCases(t)
	n := startNode(t, "server", s.proxy.URL, s.tokens["evaluate"])
	for _, c := range cases {
		if got := n.details(t, c.sdkAsk); !c.want.same(got) {
			t.Errorf("%s for %s: %s, want %s", c.flag, show(c.context), show(got), show(c.want))
		}
	}
	bad := startNode(t, "server", s.proxy.URL, "dzk_nothing")
	if got := bad.details(t, cases[0].sdkAsk); got.Value != false || got.Reason != "ERROR" || got.ErrorCode != "GENERAL" || s.witness.count("single 401") != 1 {
		t.Errorf("with a bad token: %s, want false, ERROR, GENERAL", show(got))
	}
}

func TestOpenFeatureWeb(t *testing.T) {
	t.Parallel()
	s := startWitnessed(t)
	s.pastTheHour()
	cases := s.sdkCases(t)
	n := startNode(t, "web", s.proxy.URL, s.tokens["evaluate"])
	if _, err := n.call(t, "start", map[string]any{"context": map[string]any{"targetingKey": "umbrella"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if !c.bulk {
			continue
		}
		if _, err := n.call(t, "context", map[string]any{"context": c.context}); err != nil {
			t.Fatal(err)
		}
		if got := n.details(t, c.sdkAsk); !c.want.same(got) {
			t.Errorf("%s for %s: %s, want %s", c.flag, show(c.context), show(got), show(c.want))
		}
	}

	// The same context again is answered without a body, and what was known stands.
	ask := cases[1].sdkAsk
	for range 2 {
		if _, err := n.call(t, "context", map[string]any{"context": ask.context}); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.details(t, ask); s.witness.count("bulk 304") == 0 || !cases[1].want.same(got) {
		t.Errorf("asked again, %d answers were 304, and calendar is %s, want %s", s.witness.count("bulk 304"), show(got), show(cases[1].want))
	}

	for _, c := range []struct {
		name, token string
		context     map[string]any
		status      string
	}{
		{"bad token", "dzk_nothing", ask.context, "bulk 401"},
		{"no tenant", s.tokens["evaluate"], map[string]any{}, "bulk 400"},
		{"unknown environment", s.tokens["evaluate"], map[string]any{"targetingKey": "acme", "environment": "moon"}, "bulk 400"},
	} {
		before := s.witness.count(c.status)
		_, err := startNode(t, "web", s.proxy.URL, c.token).call(t, "start", map[string]any{"context": c.context})
		if err == nil || s.witness.count(c.status) != before+1 {
			t.Errorf("%s: the provider starts with error %v, want one, after %s", c.name, err, c.status)
		}
	}
}
