package handlers

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
)

// me is the answer of GET /me as a client reads it.
type me struct {
	Profile profile
	Tenants []struct {
		tenantJSON
		Subscription subscription
	}
	Subscription *subscription
}

type subscription struct{ Plan, Status, Since string }

// slugs are those of its tenants.
func (m me) slugs() (out []string) {
	for _, x := range m.Tenants {
		out = append(out, x.Slug)
	}
	return out
}

// me asks who a bearer is.
func (s *running) me(t testing.TB, token string) me {
	t.Helper()
	return decode[me](t, s.want(t, 200, "GET /me", "", bearer(token)))
}

// sameProfile fails unless a profile is as wanted.
func sameProfile(t testing.TB, of string, got, want profile) {
	t.Helper()
	if show(got) != show(want) {
		t.Errorf("%s: the profile is %s, want %s", of, show(got), show(want))
	}
}

// A person in two tenants finds exactly these two, each as GET /tenants has it, with its subscription.
func TestMeOfAMember(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	groups := []string{"tenant:initech", "tenant:removed", "tenant:acme", "dezky-operators", "tenant:", "acme"}
	p.SetGroups(authtest.AcmeSub, groups...)
	s.move(p, time.Hour)
	suspended := decode[tenantJSON](t, s.want(t, 200, "PATCH /tenants/acme", `{"status":"suspended"}`))
	s.move(p, time.Hour)
	s.want(t, 200, "PATCH /tenants/acme", `{"name":"Acme AS","partnerSlug":null}`)
	upgraded := decode[tenantJSON](t, s.want(t, 200, "PATCH /tenants/initech", `{"plan":"starter"}`))

	token := p.AccessToken(authtest.PortalID, authtest.AcmeSub)
	got := s.me(t, token)
	sameProfile(t, "the portal's token", got.Profile,
		profile{"alma@acme.example", "Alma of Acme", authtest.AcmeSub, "portal", groups})
	if want := []string{"acme", "initech"}; !slices.Equal(got.slugs(), want) {
		t.Fatalf("tenants %v, want %v", got.slugs(), want)
	}
	list := decode[[]tenantJSON](t, s.want(t, 200, "GET /tenants", "", bearer(token)))
	since := []subscription{{"business", "suspended", suspended.UpdatedAt}, {"starter", "active", upgraded.UpdatedAt}}
	for i, x := range got.Tenants {
		if show(x.tenantJSON) != show(list[i]) {
			t.Errorf("%s is %s, want %s as GET /tenants has it", x.Slug, show(x.tenantJSON), show(list[i]))
		}
		if x.Subscription != since[i] {
			t.Errorf("%s has the subscription %v, want %v", x.Slug, x.Subscription, since[i])
		}
	}
	if got.Subscription == nil || *got.Subscription != since[0] {
		t.Errorf("the subscription is %v, want %v", got.Subscription, since[0])
	}
	if suspended.UpdatedAt == list[0].UpdatedAt || upgraded.UpdatedAt == upgraded.CreatedAt {
		t.Error("the times of creation, subscription and last change are not different")
	}

	s.want(t, 204, "DELETE /tenants/acme", "")
	if got := s.me(t, token).slugs(); !slices.Equal(got, []string{"initech"}) {
		t.Errorf("after the removal of one: tenants %v, want initech", got)
	}
	p.SetGroups(authtest.AcmeSub)
	none := s.want(t, 200, "GET /me", "", bearer(p.AccessToken(authtest.PortalID, authtest.AcmeSub)))
	if !strings.Contains(none.body, `"groups":[]},"tenants":[],"subscription":null}`) {
		t.Errorf("of nobody's person: %s, want empty lists and no subscription", none.body)
	}
}

// A partner's people are members of its tenants, of those that are its now, wherever members are let in.
func TestPartnersPeople(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	person := func(groups ...string) string {
		p.SetGroups(authtest.AcmeSub, groups...)
		return p.AccessToken(authtest.PortalID, authtest.AcmeSub)
	}
	nord := person("partner:nordhost", "partner:", "Partner:fjordit", "partner:fjordit ")
	fjord := person("tenant:umbrella", "partner:fjordit", "partner:removed")
	// sees holds that the bearer has these tenants by every route, and no other.
	sees := func(when, token string, own ...string) {
		t.Helper()
		if got := s.me(t, token).slugs(); !slices.Equal(got, own) {
			t.Errorf("%s: GET /me has %v, want %v", when, got, own)
		}
		var listed []string
		for _, x := range decode[[]tenantJSON](t, s.want(t, 200, "GET /tenants", "", bearer(token))) {
			listed = append(listed, x.Slug)
		}
		if !slices.Equal(listed, own) {
			t.Errorf("%s: GET /tenants has %v, want %v", when, listed, own)
		}
		for _, slug := range []string{"acme", "globex", "initech", "umbrella", "nordhost", "nowhere"} {
			status := map[bool]int{true: 200, false: 404}[slices.Contains(own, slug)]
			s.want(t, status, "GET /tenants/"+slug, "", bearer(token))
			for _, path := range []string{"/flags/evaluate", "/flags/explain"} {
				s.want(t, status, "POST "+path, `{"tenantSlug":"`+slug+`"}`, bearer(token))
			}
			for _, path := range []string{"/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/search"} { // what the context tells does not count
				s.want(t, status, "POST "+path, ask(slug, `"partner":"nordhost"`), bearer(token))
			}
		}
	}
	sees("at first", nord, "acme")
	sees("at first", fjord, "initech", "umbrella")
	s.want(t, 200, "PATCH /tenants/acme", `{"partnerSlug":"fjordit"}`)
	s.want(t, 200, "PATCH /tenants/globex", `{"partnerSlug":"nordhost"}`)
	sees("after two have moved", nord, "globex")
	sees("after two have moved", fjord, "acme", "initech", "umbrella")
	s.want(t, 200, "PATCH /tenants/globex", `{"partnerSlug":null}`)
	sees("after its only one has left", nord)
	s.want(t, 403, "GET /partners", "", bearer(fjord))
	s.want(t, 403, "GET /partners/fjordit", "", bearer(fjord))
	s.want(t, 403, "PATCH /partners/fjordit", `{"name":"Mine"}`, bearer(fjord))
}

// Who may read has all tenants by pages, who may only evaluate none.
func TestMeOfOthers(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	all := []string{"acme", "globex", "initech", "umbrella"}
	ids := map[string]string{}
	for _, role := range db.TokenRoles {
		ids[role] = s.token(t, db.NewToken{Name: "of-" + role, Role: role, Environment: "staging"}).ID
	}
	for _, tt := range []struct {
		name, token string
		want        profile
		tenants     []string
	}{
		{"operator", p.AccessToken(authtest.ConsoleID, authtest.OpsSub),
			profile{"ops@dezky.example", "Olivia Ops", authtest.OpsSub, "operator", []string{"dezky-operators"}}, all},
		{"viewer", p.AccessToken(authtest.ConsoleID, authtest.ViewerSub),
			profile{"viewer@dezky.example", "Victor Viewer", authtest.ViewerSub, "operator", []string{"dezky-viewers"}}, all},
		{"service", serviceToken(p),
			profile{"", authtest.ServiceID, authtest.ServiceSub(authtest.ServiceID), "service", []string{"dezky-services"}}, all},
		{"service with a bare secret", p.AccessToken(authtest.BareID, authtest.ServiceSub(authtest.BareID)),
			profile{"", "Autogenerated user", authtest.ServiceSub(authtest.BareID), "service", []string{}}, all},
		{"token of an operator", s.tokens["of-operator"], profile{"", "of-operator", ids["operator"], "token", []string{}}, all},
		{"token that reads", s.tokens["of-read"], profile{"", "of-read", ids["read"], "token", []string{}}, all},
		{"token that evaluates", s.tokens["of-evaluate"], profile{"", "of-evaluate", ids["evaluate"], "token", []string{}}, nil},
	} {
		got := s.me(t, tt.token)
		sameProfile(t, tt.name, got.Profile, tt.want)
		if !slices.Equal(got.slugs(), tt.tenants) {
			t.Errorf("%s: tenants %v, want %v", tt.name, got.slugs(), tt.tenants)
		}
		if (got.Subscription == nil) != (tt.tenants == nil) {
			t.Errorf("%s: the subscription is %v", tt.name, got.Subscription)
		}
	}
	a := s.want(t, 403, "GET /me", "", bearer(p.AccessToken(authtest.ConsoleID, authtest.StrangerSub)))
	if detail := decode[problem](t, a).Detail; detail != "this needs the role evaluate; yours is nobody, because you are in none of the groups that give one" {
		t.Errorf("a stranger hears %q", detail)
	}
	s.want(t, 401, "GET /me", "", nobody)
}

// The pages of GET /me are those of GET /tenants.
func TestMePages(t *testing.T) {
	t.Parallel()
	s := startDemo(t)
	var want []string
	for _, x := range s.db.Current().Tenants() {
		want = append(want, x.Slug)
	}
	for _, limit := range []int{1, 7, len(want), 1000} {
		var got []string
		for path := fmt.Sprintf("/me?limit=%d", limit); path != ""; {
			a := s.want(t, 200, "GET "+path, "")
			one := decode[me](t, a)
			if len(one.Tenants) > limit {
				t.Fatalf("GET %s has %d tenants", path, len(one.Tenants))
			}
			if *one.Subscription != one.Tenants[0].Subscription {
				t.Errorf("GET %s: the subscription is %v, want the first tenant's", path, one.Subscription)
			}
			got = append(got, one.slugs()...)
			link := a.header.Get("Link")
			path = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
			if more := len(got) < len(want); more != strings.HasPrefix(path, "/me?after="+got[len(got)-1]+"&") {
				t.Errorf("after %d tenants: Link %q", len(got), link)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %v, want %v", limit, got, want)
		}
	}
	past := decode[me](t, s.want(t, 200, "GET /me?after=zzz", ""))
	if len(past.Tenants) != 0 || past.Subscription != nil {
		t.Errorf("past the last: %v, want nothing", past)
	}
}

// What is claimed is shown as it is, as far as it goes, and decides nothing.
func TestMeShowsWhatIsClaimed(t *testing.T) {
	t.Parallel()
	p := authtest.New(t, authtest.Options{})
	s := trusting(t, p)
	many := []string{"tenant:acme"}
	for i := range 300 {
		many = append(many, fmt.Sprintf("g%d", i))
	}
	long := strings.Repeat("ø", 300)
	for _, tt := range []struct {
		name   string
		claims map[string]any
		want   profile
	}{
		{"unicode", map[string]any{"name": "Ærlig «Ødegård» 李 👩‍💻", "email": "ærlig@bücher.example"},
			profile{"ærlig@bücher.example", "Ærlig «Ødegård» 李 👩‍💻", authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
		{"markup", map[string]any{"name": `<b>"&`}, profile{"alma@acme.example", `<b>"&`, authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
		{"no name", map[string]any{"name": nil}, profile{"alma@acme.example", "alma", authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
		{"an empty name", map[string]any{"name": ""}, profile{"alma@acme.example", "alma", authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
		{"a name that is no text", map[string]any{"name": []int{7}}, profile{"alma@acme.example", "alma", authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
		{"only a subject", map[string]any{"name": nil, "email": nil, "preferred_username": nil, "groups": "tenant:acme"},
			profile{"", authtest.AcmeSub, authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
		{"long ones", map[string]any{"name": long, "email": long}, profile{long[:400], long[:400], authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
		{"many groups", map[string]any{"groups": many}, profile{"alma@acme.example", "Alma of Acme", authtest.AcmeSub, "portal", many[:200]}},
		{"a staff's name and email", map[string]any{"name": "token:operator", "email": "ops@dezky.example", "kind": "operator"},
			profile{"ops@dezky.example", "token:operator", authtest.AcmeSub, "portal", []string{"tenant:acme"}}},
	} {
		claims := p.Claims(authtest.PortalID, authtest.AcmeSub)
		for name, value := range tt.claims {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		got := s.me(t, p.Token(claims))
		sameProfile(t, tt.name, got.Profile, tt.want)
		if !slices.Equal(got.slugs(), []string{"acme"}) {
			t.Errorf("%s: tenants %v, want acme", tt.name, got.slugs())
		}
	}
	// The tenants of somebody in more groups than are shown are all there.
	claims := p.Claims(authtest.PortalID, authtest.AcmeSub)
	claims["groups"] = append(slices.Clone(many[1:]), "tenant:globex")
	if got := s.me(t, p.Token(claims)).slugs(); !slices.Equal(got, []string{"globex"}) {
		t.Errorf("by the last of 301 groups: tenants %v, want globex", got)
	}
}

// In the console a person is who the provider said when it was last asked.
func TestMeOfASession(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	asked := func(groups ...string) {
		t.Helper()
		got := decode[me](t, b.api(200, "GET /api/me", ""))
		sameProfile(t, "the session", got.Profile, profile{"ops@dezky.example", "Olivia Ops", authtest.OpsSub, "session", groups})
		if want := []string{"acme", "globex", "initech", "umbrella"}; !slices.Equal(got.slugs(), want) {
			t.Errorf("tenants %v, want %v", got.slugs(), want)
		}
	}
	asked("dezky-operators")
	s.p.SetGroups(authtest.OpsSub, "dezky-viewers", "tenant:acme")
	asked("dezky-operators")
	s.later(auth.CheckEvery)
	asked("dezky-viewers", "tenant:acme")
	asked("dezky-viewers", "tenant:acme") // as it is kept
	b.api(401, "GET /me", "")
}

// A session that an earlier version began goes on, and says more once the provider is asked again.
func TestMeOfAnOlderSession(t *testing.T) {
	t.Parallel()
	s := signInServer(t, anHour)
	b := s.surfer(t)
	b.signIn(authtest.OpsSub)
	file, err := sql.Open("sqlite", filepath.Join(s.dir, db.File))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	done, err := file.ExecContext(context.Background(), "UPDATE sessions SET data = json_remove(data, '$.email', '$.fullName', '$.groups') WHERE json_type(data, '$.groups') = 'array'")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := done.RowsAffected(); n != 1 || err != nil {
		t.Fatalf("%d sessions, %v, want one with groups", n, err)
	}
	got := decode[me](t, b.api(200, "GET /api/me", "")).Profile
	sameProfile(t, "at first", got, profile{"", "ops@dezky.example", authtest.OpsSub, "session", []string{}})
	s.later(auth.CheckEvery)
	got = decode[me](t, b.api(200, "GET /api/me", "")).Profile
	sameProfile(t, "later", got, profile{"ops@dezky.example", "Olivia Ops", authtest.OpsSub, "session", []string{"dezky-operators"}})
}

// Who came by a one-time link has the name of the local operator and no provider.
func TestMeOfALink(t *testing.T) {
	t.Parallel()
	s := &signIns{start(t), nil}
	s.registry(t)
	b := s.surfer(t)
	b.send(http.MethodPost, "/login/link", url.Values{"token": {s.app.Load().links.New()}})
	got := decode[me](t, b.api(200, "GET /api/me", ""))
	sameProfile(t, "by link", got.Profile, profile{"", auth.LocalOperator.Name, "", "session", []string{}})
	if len(got.Tenants) != 4 {
		t.Errorf("tenants %v, want all four", got.slugs())
	}
}

// A tenant's own JSON has no subscription: that is for GET /me alone.
func TestTenantsHaveNoSubscription(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	var got map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s.want(t, 200, "GET /tenants/acme", "").body), &got); err != nil {
		t.Fatal(err)
	}
	if _, has := got["subscription"]; has || len(got) != 10 {
		t.Errorf("the tenant has %d fields, with a subscription: %t", len(got), has)
	}
}
