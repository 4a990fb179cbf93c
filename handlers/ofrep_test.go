package handlers

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/flags"
)

// evaluated is one flag of an OFREP answer.
type evaluated struct {
	Key      string         `json:"key"`
	Value    bool           `json:"value"`
	Reason   string         `json:"reason"`
	Variant  string         `json:"variant"`
	Metadata map[string]any `json:"metadata"`
}

// bulk is an OFREP bulk answer.
type bulk struct {
	Flags    []evaluated    `json:"flags"`
	Streams  []offered      `json:"eventStreams"`
	Metadata map[string]any `json:"metadata"`
}

// offered is where an OFREP client learns of changes.
type offered struct {
	Type  string `json:"type"`
	URL   string `json:"url"`
	Delay int    `json:"inactivityDelaySec"`
}

func (b bulk) flag(t *testing.T, key string) evaluated {
	t.Helper()
	for _, f := range b.Flags {
		if f.Key == key {
			return f
		}
	}
	t.Fatalf("there is no flag %s in %s", key, show(b))
	return evaluated{}
}

// ask is the body of an OFREP request.
func ask(slug string, attributes ...string) string {
	return fmt.Sprintf(`{"context":{"targetingKey":%q%s}}`, slug, strings.Join(append([]string{""}, attributes...), ","))
}

// Bulk, single, evaluate and explain say the same of every tenant, flag and environment.
func TestOFREPAgreesWithExplain(t *testing.T) {
	t.Parallel()
	s := startDemo(t)
	snapshot := s.db.Current()
	for i, tenant := range snapshot.Tenants() {
		for _, environment := range snapshot.Environments() {
			in := fmt.Sprintf(`"environment":%q`, environment)
			got := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask(tenant.Slug, in)))
			values := decode[map[string]bool](t, s.want(t, 200, "POST /flags/evaluate", fmt.Sprintf(`{"tenantSlug":%q,%s}`, tenant.Slug, in)))
			explained := decode[map[string]flags.Explanation](t, s.want(t, 200, "POST /flags/explain", fmt.Sprintf(`{"tenantSlug":%q,%s}`, tenant.Slug, in)))
			if len(got.Flags) != len(snapshot.Flags()) || len(values) != len(got.Flags) {
				t.Fatalf("%d flags in bulk and %d in evaluate, want %d", len(got.Flags), len(values), len(snapshot.Flags()))
			}
			if got.Metadata["environment"] != environment || got.Metadata["revision"] != float64(snapshot.Revision()) {
				t.Errorf("the set's metadata %v, want %s and revision %d", got.Metadata, environment, snapshot.Revision())
			}
			for j, f := range snapshot.Flags() {
				x, e := got.Flags[j], explained[f.Key]
				want := evaluated{Key: f.Key, Value: e.Value, Reason: string(e.Reason), Variant: "off", Metadata: map[string]any{"version": float64(f.Version)}}
				if e.Value {
					want.Variant = "on"
				}
				if f.Description != "" {
					want.Metadata["description"] = f.Description
				}
				if e.Bucket != nil {
					want.Metadata["bucket"] = float64(*e.Bucket)
				}
				if e.Axis != "" {
					want.Metadata["axis"] = string(e.Axis)
				}
				if show(x) != show(want) || values[f.Key] != e.Value {
					t.Errorf("%s for %s in %s: %s, want %s; evaluate %t", f.Key, tenant.Slug, environment, show(x), show(want), values[f.Key])
				}
				if (i+j)%17 == 0 {
					one := decode[evaluated](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags/"+f.Key, ask(tenant.Slug, in)))
					if show(one) != show(want) {
						t.Errorf("%s alone: %s, want %s", f.Key, show(one), show(want))
					}
				}
			}
		}
	}
}

func TestOFREPRefuses(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	for _, tt := range []struct{ name, body, code, says string }{
		{"nothing", " ", "PARSE_ERROR", "empty"},
		{"half a body", `{"context":{`, "PARSE_ERROR", "line 1"},
		{"more than one", `{"context":{"targetingKey":"acme"}} {}`, "PARSE_ERROR", "not JSON"},
		{"a list", `[]`, "PARSE_ERROR", "must be an object, not an array"},
		{"a key twice", `{"context":{"targetingKey":"acme","targetingKey":"globex"}}`, "PARSE_ERROR", "context.targetingKey is given twice"},
		{"no context", `{}`, "INVALID_CONTEXT", "context is missing"},
		{"null for a context", `{"context":null}`, "INVALID_CONTEXT", "context must be an object, not null"},
		{"a text for a context", `{"context":"acme"}`, "INVALID_CONTEXT", "context must be an object, not a string"},
		{"a context in capitals", `{"Context":{"targetingKey":"acme"}}`, "INVALID_CONTEXT", "context is missing"},
		{"no targetingKey", `{"context":{}}`, "TARGETING_KEY_MISSING", "tenant's slug"},
		{"an empty targetingKey", `{"context":{"targetingKey":""}}`, "TARGETING_KEY_MISSING", "tenant's slug"},
		{"null for a targetingKey", `{"context":{"targetingKey":null}}`, "TARGETING_KEY_MISSING", "tenant's slug"},
		{"a number for a targetingKey", `{"context":{"targetingKey":7}}`, "INVALID_CONTEXT", "context.targetingKey must be a string, not a number"},
		{"a number for an environment", ask("acme", `"environment":1`), "INVALID_CONTEXT", "context.environment must be a string"},
		{"an empty environment", ask("acme", `"environment":""`), "INVALID_CONTEXT", "context.environment must not be empty"},
		{"an empty environment in an unusual form", ask("acme", `"environment":""`, `"list":[]`), "INVALID_CONTEXT", "context.environment must not be empty"},
		{"a list for a plan", ask("nobody", `"plan":["business"]`), "INVALID_CONTEXT", "context.plan must be a string"},
		{"half a surrogate pair", `{"context":{"targetingKey":"\ud800"}}`, "INVALID_CONTEXT", "surrogate"},
		{"an unknown environment", ask("acme", `"environment":"moon"`), "INVALID_CONTEXT", "context.environment must be a known environment (production, staging, development)"},
	} {
		for _, path := range []string{"/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/search", "/api/ofrep/v1/evaluate/flags"} {
			got := decode[ofrepError](t, s.want(t, 400, "POST "+path, tt.body))
			if string(got.Code) != tt.code || !strings.Contains(got.Details, tt.says) {
				t.Errorf("%s at %s: %s, want %s that says %q", tt.name, path, show(got), tt.code, tt.says)
			}
			if want := map[bool]string{true: "search"}[strings.HasSuffix(path, "search")]; got.Key != want {
				t.Errorf("%s at %s: the key is %q, want %q", tt.name, path, got.Key, want)
			}
		}
	}
	got := decode[ofrepError](t, s.want(t, 404, "POST /ofrep/v1/evaluate/flags/nothing", ask("acme")))
	if got.Key != "nothing" || got.Code != flags.FlagNotFound {
		t.Errorf("an unknown flag: %s", show(got))
	}
	// What stops a request before has the protocol's words beside its own.
	p := decode[problem](t, s.want(t, 401, "POST /ofrep/v1/evaluate/flags/search", ask("acme"), nobody))
	if p.ErrorCode != flags.GeneralError || p.ErrorDetails != p.Detail || p.Key != "search" {
		t.Errorf("without credentials: %s, want GENERAL with the detail and the key", show(p))
	}
}

// Other attributes may be anything, and whatever else the protocol gets later is no mistake.
func TestOFREPTakesAnyAttribute(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.pastTheHour()
	want := s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask("acme")).body
	for _, body := range []string{
		ask("acme", `"email":"a@acme.example"`, `"age":41`, `"score":-1.5e3`, `"beta":true`, `"none":null`),
		ask("acme", `"list":[1,{"a":[]}]`, `"nested":{"deep":{"deeper":{}}}`, `"text":"\u00e6\ud83d\ude00\ud800 \n"`),
		ask("acme", `"environment":null`, `"plan":null`, `"plan2":""`),
		ask("acme", `"plan":"enterprise"`, `"partner":"nobody"`), // the registry knows better
		" {\n\t\"context\" : { \"targetingKey\" : \"acme\" , \"n\" : 0 } , \"later\" : {} } \n",
	} {
		if got := s.want(t, 200, "POST /ofrep/v1/evaluate/flags", body).body; got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestOFREPUnregisteredTenant(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.want(t, 201, "POST /flags", `{"key":"by_plan","state":"targeted","scope":{"plans":["business"]}}`)
	s.want(t, 201, "POST /flags", `{"key":"by_partner","state":"targeted","scope":{"partnerSlugs":["fjordit"]}}`)
	s.want(t, 201, "POST /flags", `{"key":"by_place","state":"targeted","scope":{"environments":["staging"]}}`)
	s.want(t, 201, "POST /flags", `{"key":"by_slug","state":"targeted","scope":{"tenantSlugs":["acme"]}}`)
	s.want(t, 201, "POST /flags", `{"key":"by_bucket","state":"rollout","pct":50}`)
	for _, slug := range []string{"newcomer", "Not a slug — at all", "a@b.example"} {
		got := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask(slug, `"plan":"business"`, `"partner":"fjordit"`, `"environment":"staging"`)))
		bucket := flags.Bucket(slug, "by_bucket")
		for key, want := range map[string]bool{"by_plan": true, "by_partner": true, "by_place": true, "by_slug": false, "by_bucket": bucket < 50} {
			f := got.flag(t, key)
			if f.Value != want || f.Metadata["tenantRegistered"] != false {
				t.Errorf("%s for %s: %s, want %t, marked", key, slug, show(f), want)
			}
			one := decode[evaluated](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags/"+key, ask(slug, `"plan":"business"`, `"partner":"fjordit"`, `"environment":"staging"`)))
			if show(one) != show(f) {
				t.Errorf("%s alone: %s, want %s", key, show(one), show(f))
			}
		}
		if got.Metadata["tenantRegistered"] != false || got.flag(t, "by_bucket").Metadata["bucket"] != float64(bucket) {
			t.Errorf("for %s the set's metadata is %v, and the bucket %v, want it marked, and %d", slug, got.Metadata, got.flag(t, "by_bucket").Metadata, bucket)
		}
		bare := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask(slug)))
		for _, key := range []string{"by_plan", "by_partner", "by_place"} {
			if f := bare.flag(t, key); f.Value || f.Metadata["axis"] == nil {
				t.Errorf("%s for %s without attributes: %s, want off, by the axis", key, slug, show(f))
			}
		}
	}
	known := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask("acme")))
	if _, marked := known.Metadata["tenantRegistered"]; marked {
		t.Errorf("a known tenant is marked: %v", known.Metadata)
	}
}

// A member gets its own tenants, as the registry knows them, and nobody else's.
func TestOFREPMembers(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	p.SetGroups(authtest.AcmeSub, "tenant:acme", "tenant:removed")
	member := bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub))
	s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask("acme"), member)
	s.want(t, 200, "POST /ofrep/v1/evaluate/flags/search", ask("acme"), member)
	for _, slug := range []string{"globex", "nowhere", "removed"} {
		for _, path := range []string{"/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/search"} {
			got := decode[ofrepError](t, s.want(t, 404, "POST "+path, ask(slug, `"plan":"enterprise"`), member))
			if want := fmt.Sprintf("tenant %q: not found", slug); got.Details != want {
				t.Errorf("%s at %s: %s, want %s", slug, path, show(got), want)
			}
		}
	}
}

func TestOFREPPinnedToken(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.token(t, db.NewToken{Name: "pinned", Role: "evaluate", Environment: "staging"})
	got := decode[bulk](t, s.want(t, 200, "POST /ofrep/v1/evaluate/flags", ask("acme"), s.as("pinned")))
	if got.Metadata["environment"] != "staging" {
		t.Errorf("a token for staging is answered for %v", got.Metadata["environment"])
	}
	s.want(t, 403, "POST /ofrep/v1/evaluate/flags", ask("acme", `"environment":"production"`), s.as("pinned"))
	s.want(t, 403, "POST /ofrep/v1/evaluate/flags/search", ask("acme", `"environment":"production"`), s.as("pinned"))
}

func TestOFREPETag(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.pastTheHour()
	const bulkPath = "POST /ofrep/v1/evaluate/flags"
	get := func(status int, query, body string, headers ...string) string {
		t.Helper()
		return s.want(t, status, bulkPath+query, body, headers...).header.Get("ETag")
	}
	first := get(200, "", ask("acme"))
	if again := get(304, "", ask("acme"), "If-None-Match: "+first); again != first {
		t.Errorf("the 304 has the ETag %s, want %s", again, first)
	}
	get(304, "", ask("acme"), `If-None-Match: "other", W/`+first)
	for name, body := range map[string]string{"tenant": ask("globex"), "environment": ask("acme", `"environment":"staging"`), "attribute": ask("acme", `"plan":"x"`)} {
		if other := get(200, "", body, "If-None-Match: "+first); other == first {
			t.Errorf("with another %s the ETag is the same", name)
		}
	}
	// The stream's address ends with the token: one who has another now needs another.
	if other := get(200, "", ask("acme"), "If-None-Match: "+first, s.as("evaluate")); other == first {
		t.Error("with another token the ETag is the same")
	}
	current, modified := eventID(s.db.Current()), s.db.Current().Modified()
	// An event of a stream about another state than the one served asks for all of it.
	for _, query := range []string{"?flagConfigEtag=%22" + current + "%22", "?flagConfigEtag=" + current, "?flagConfigEtag=", "?other=1",
		"?flagConfigLastModified=" + strconv.FormatInt(modified.Unix(), 10), "?flagConfigLastModified=" + modified.UTC().Format(time.RFC3339),
		"?flagConfigLastModified=1", "?flagConfigLastModified=soon"} {
		get(304, query, ask("acme"), "If-None-Match: "+first)
	}
	for _, query := range []string{"?flagConfigEtag=%22other-1%22", "?flagConfigEtag=" + current + "1",
		"?flagConfigLastModified=" + strconv.FormatInt(modified.Unix()+1, 10), "?flagConfigLastModified=" + modified.Add(time.Second).UTC().Format(time.RFC3339)} {
		if tag := get(200, query, ask("acme"), "If-None-Match: "+first); tag != first {
			t.Errorf("%s: the ETag is %s, want %s", query, tag, first)
		}
	}
	// There and back is a change.
	s.want(t, 200, "PATCH /flags/search", `{"description":"x"}`)
	second := get(200, "", ask("acme"), "If-None-Match: "+first)
	if second == first {
		t.Error("after a change the ETag is the same")
	}
}

// pastTheHour moves the server's clock to a minute past an hour: at the full hour the streams' addresses change.
func (s *running) pastTheHour() {
	s.moveClock(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + time.Minute)))
}

// The address of a stream stays the same for an hour, so that a client keeps its connection. When it changes the
// ETag does too, else a client with an address that has expired would be told that nothing has changed.
func TestOFREPStreamAddress(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	s.pastTheHour()
	get := func(body string, headers ...string) (address, etag string) {
		t.Helper()
		a := s.want(t, 200, "POST /ofrep/v1/evaluate/flags", body, headers...)
		streams := decode[bulk](t, a).Streams
		if len(streams) != 1 || streams[0].Type != "sse" || streams[0].Delay != 120 || !strings.HasPrefix(streams[0].URL, s.url+"/ofrep/v1/stream?credential=") {
			t.Fatalf("the streams are %s", show(streams))
		}
		return streams[0].URL, a.header.Get("ETag")
	}
	first, tag := get(ask("acme"))
	s.moveClock(55 * time.Minute)
	if again, sameTag := get(ask("acme")); again != first || sameTag != tag {
		t.Errorf("within the hour the address changes from %s to %s, the ETag from %s to %s", first, again, tag, sameTag)
	}
	if other, _ := get(ask("globex")); other == first {
		t.Error("another tenant has the same address")
	}
	if other, _ := get(ask("acme"), s.as("evaluate")); other == first {
		t.Error("another token has the same address")
	}
	s.moveClock(10 * time.Minute)
	if next, nextTag := get(ask("acme"), "If-None-Match: "+tag); next == first || nextTag == tag {
		t.Errorf("in the next hour the address is %s, the ETag %s, want others", next, nextTag)
	}
	u, err := url.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	line := "GET " + u.RequestURI()
	s.want(t, 200, line, "", nobody) // as long as the next hour lasts
	s.moveClock(time.Hour)
	s.want(t, 401, line, "", nobody)
}

// Where nobody said by which address the server is reached, a stream's address goes by the one that was asked.
func TestOFREPStreamAddressByHost(t *testing.T) {
	t.Parallel()
	s := listen(t, readSpec())
	s.db = dbtest.OpenAt(t, t.TempDir(), s.now)
	a := appliance(t, s.db, s.now, discard, "http://[::]:3001")
	a.ByHost = true
	if err := s.Start(a); err != nil {
		t.Fatal(err)
	}
	s.token(t, db.NewToken{Name: "operator", Role: "operator"})
	s.registry(t)
	for host, want := range map[string]string{"flags.internal:3001": "http://flags.internal:3001/", "[fd00::1]:3001": "http://[fd00::1]:3001/", "a'b": "http://[::]:3001/"} {
		r := s.request(t, "POST /ofrep/v1/evaluate/flags", ask("acme"))
		r.Host = host
		response, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var got bulk
		err = json.NewDecoder(response.Body).Decode(&got)
		response.Body.Close()
		if err != nil || len(got.Streams) != 1 || !strings.HasPrefix(got.Streams[0].URL, want+"ofrep/v1/stream?") {
			t.Errorf("asked as %s the streams are %s, %v, want one at %s", host, show(got.Streams), err, want)
		}
	}
}
