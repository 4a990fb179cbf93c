package provisioning

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/provisioning/provisioningtest"
)

func client(s *provisioningtest.Server) *Authentik {
	return NewAuthentik(s.URL, provisioningtest.Token)
}

func acme() *flags.Tenant {
	return &flags.Tenant{ID: "t1", Slug: "acme", Name: "Acme & Søn", Plan: "business", PartnerSlug: "nordhost"}
}

type attributes = map[string]any

func marked(id string) attributes { return attributes{attributeID: id} }

// acmes are the attributes of acme's group.
func acmes(more attributes) attributes {
	out := attributes{"dezky_tenant_id": "t1", "dezky_tenant_name": "Acme & Søn", "dezky_plan": "business", "dezky_partner": "nordhost"}
	for k, v := range more {
		out[k] = v
	}
	return out
}

func TestEnsure(t *testing.T) {
	const name = "tenant:acme"
	group := func(a attributes) provisioningtest.Group {
		return provisioningtest.Group{Name: name, Attributes: a, Users: []int{7}, Superuser: true}
	}
	hidden, fixed, kept := group(marked("t1")), group(marked("t0")), group(marked("t1"))
	hidden.Hidden, fixed.Fixed, kept.Fixed = true, true, true
	for _, tt := range []struct {
		name     string
		there    []provisioningtest.Group
		unmarked Unmarked
		calls    string
		want     []attributes // of the groups of that name afterwards
		kept     bool         // whether the first of them is the one that was there
		words    string       // part of the error
	}{
		{"none", nil, Adopt, "GET POST", []attributes{acmes(nil)}, false, ""},
		{"in line", []provisioningtest.Group{group(acmes(attributes{"color": "red"}))}, Renew, "GET", []attributes{acmes(attributes{"color": "red"})}, true, ""},
		{"out of date, with attributes of others", []provisioningtest.Group{group(acmes(attributes{"dezky_plan": "starter", "size": 12345678901234567.0, "more": attributes{"a": []any{true}}}))}, Refuse,
			"GET PATCH", []attributes{acmes(attributes{"size": 12345678901234567.0, "more": attributes{"a": []any{true}}})}, true, ""},
		{"plan is no text", []provisioningtest.Group{group(acmes(attributes{"dezky_plan": 3}))}, Refuse, "GET PATCH", []attributes{acmes(nil)}, true, ""},
		{"made by hand", []provisioningtest.Group{group(attributes{"color": "red"})}, Adopt, "GET PATCH", []attributes{acmes(attributes{"color": "red"})}, true, ""},
		{"made by hand, without attributes", []provisioningtest.Group{group(nil)}, Adopt, "GET PATCH", []attributes{acmes(nil)}, true, ""},
		{"made by hand, perhaps for an earlier tenant", []provisioningtest.Group{group(nil)}, Refuse, "GET", []attributes{nil}, true, "this slug had another tenant before"},
		{"made by hand for an earlier tenant", []provisioningtest.Group{group(nil)}, Renew, "GET DELETE POST", []attributes{acmes(nil)}, false, ""},
		{"an earlier tenant's", []provisioningtest.Group{group(marked("t0"))}, Adopt, "GET DELETE POST", []attributes{acmes(nil)}, false, ""},
		{"another's on a second page", []provisioningtest.Group{group(acmes(nil)), group(marked("t0")), group(marked("t9"))}, Adopt,
			"GET GET DELETE DELETE", []attributes{acmes(nil)}, true, ""},
		{"two of them", []provisioningtest.Group{group(acmes(nil)), group(nil)}, Adopt, "GET", []attributes{acmes(nil), nil}, true, "2 groups tenant:acme"},
		{"one that can't be seen", []provisioningtest.Group{hidden}, Adopt, "GET POST", []attributes{marked("t1")}, true, "authentik_core.view_group"},
		{"an earlier tenant's that can't be removed", []provisioningtest.Group{fixed}, Adopt, "GET DELETE GET", []attributes{marked("t0")}, true, "authentik_core.delete_group"},
		{"one that can't be changed", []provisioningtest.Group{kept}, Adopt, "GET PATCH", []attributes{marked("t1")}, true, "authentik_core.change_group"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := provisioningtest.New(t)
			s.Put(provisioningtest.Group{Name: "tenant:acme2", Attributes: marked("t2")})
			var first string
			for i, g := range tt.there {
				if pk := s.Put(g); i == 0 {
					first = pk
				}
			}
			err := client(s).Ensure(t.Context(), acme(), tt.unmarked)
			if (err == nil) != (tt.words == "") || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Fatalf("Ensure: %v, want %q", err, tt.words)
			}
			if got := strings.Join(s.Calls(), " "); got != tt.calls {
				t.Errorf("calls %s, want %s", got, tt.calls)
			}
			var got []attributes
			for _, g := range s.Groups(name) {
				got = append(got, g.Attributes)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("the groups have %v, want %v", got, tt.want)
			}
			if g := s.Groups(name)[0]; (g.PK == first) != tt.kept || tt.kept != slices.Equal(g.Users, []int{7}) || g.Superuser != tt.kept {
				t.Errorf("the group %s of %s has users %v, superuser %t; want it and them kept: %t", g.PK, first, g.Users, g.Superuser, tt.kept)
			}
			if len(s.Groups("tenant:acme2")) != 1 {
				t.Error("another tenant's group is gone")
			}
			if tt.words != "" {
				return
			}
			if err := client(s).Ensure(t.Context(), acme(), Refuse); err != nil || strings.Contains(strings.Join(s.Calls(), " "), "P") {
				t.Errorf("once more: %v, and it wrote", err)
			}
		})
	}
}

func TestEnsureWithoutPartner(t *testing.T) {
	s := provisioningtest.New(t)
	s.Put(provisioningtest.Group{Name: "tenant:acme", Attributes: acmes(nil)})
	direct := acme()
	direct.PartnerSlug = ""
	if err := client(s).Ensure(t.Context(), direct, Refuse); err != nil {
		t.Fatal(err)
	}
	want := acmes(attributes{"dezky_partner": nil})
	if got := s.Groups("tenant:acme")[0].Attributes; !reflect.DeepEqual(got, want) {
		t.Errorf("attributes %v, want %v", got, want)
	}
}

func TestRemove(t *testing.T) {
	s := provisioningtest.New(t)
	for _, a := range []attributes{nil, marked("t1"), marked("t2")} {
		s.Put(provisioningtest.Group{Name: "tenant:acme", Attributes: a})
	}
	s.Put(provisioningtest.Group{Name: "tenant:globex"})
	for range 2 {
		if err := client(s).Remove(t.Context(), "acme"); err != nil || len(s.Groups("tenant:acme")) != 0 || len(s.Groups("")) != 1 {
			t.Errorf("Remove: %v, and there are %v, want tenant:globex alone", err, s.Groups(""))
		}
	}
}

// A group that somebody else removes meanwhile is gone, which is no error.
func TestRemovedMeanwhile(t *testing.T) {
	s := provisioningtest.New(t)
	s.Put(provisioningtest.Group{Name: "tenant:acme"})
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			again := httptest.NewRecorder()
			s.ServeHTTP(again, r.Clone(r.Context()))
		}
		s.ServeHTTP(w, r)
	}))
	defer other.Close()
	if err := NewAuthentik(other.URL, provisioningtest.Token).Remove(t.Context(), "acme"); err != nil || len(s.Groups("")) != 0 {
		t.Errorf("Remove: %v, and there are %v", err, s.Groups(""))
	}
}

// Whatever Authentik answers, the error is a Failure in words, never has the token, and nothing hangs.
func TestFailures(t *testing.T) {
	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	json := func(body string) http.HandlerFunc { return answer(200, "application/json", body) }
	page := `{"pagination":{"next":%s},"results":[%s]}`
	for _, tt := range []struct {
		name  string
		fn    http.HandlerFunc
		words string
		wait  time.Duration
	}{
		{"forbidden", answer(403, "application/json", `{"detail":"You do not have permission to perform this action."}`),
			`does not let the token list groups (403: "You do not have permission to perform this action."): the token must be valid and of intent API, and its account needs the permission authentik_core.view_group`, 0},
		{"unauthorized, repeating the token", answer(401, "application/json", `{"detail":"no `+provisioningtest.Token+`"}`), `(401: "no ***")`, 0},
		{"too many", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "90"); w.WriteHeader(429) }, "(429)", 90 * time.Second},
		{"too many, without an end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "99999999999")
			w.WriteHeader(429)
		}, "(429)", backoffMost},
		{"too many, without a time", answer(429, "text/plain", ""), "(429)", time.Second},
		{"failing", answer(502, "text/html", "<h1>Bad gateway</h1>"), "Authentik fails (502)", 0},
		{"starting", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "5"); w.WriteHeader(503) }, "Authentik fails (503)", 5 * time.Second},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, "elsewhere (302)", 0},
		{"no API", answer(404, "text/html", "<h1>Not found</h1>"), "there is no API of Authentik", 0},
		{"bad request", answer(400, "application/json", `{"name":["too odd."],"x":5}`), `refuses to list groups (400: "name: too odd.")`, 0},
		{"many words", answer(400, "application/json", `{"detail":"`+strings.Repeat("å", 5000)+`"}`), strings.Repeat("å", detailMost) + "…", 0},
		{"a sign-in page", answer(200, "text/html", "<html>"), "something else than Authentik's JSON", 0},
		{"half of it", json(`{"pagination":`), "something else than Authentik's JSON", 0},
		{"another's JSON", json(`{"count":0,"results":[]}`), "no list of groups", 0},
		{"wrong types", json(`{"pagination":{"next":0},"results":[{"pk":5}]}`), "something else than Authentik's JSON", 0},
		{"a path as key", json(fmt.Sprintf(page, "0", `{"pk":"../../../users/1","name":"tenant:acme"}`)), "is none", 0},
		{"no key", json(fmt.Sprintf(page, "0", `{"name":"tenant:acme"}`)), "is none", 0},
		{"pages without end", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, page, r.URL.Query().Get("page")+"1", "")
		}, "more groups tenant:acme than there can be", 0},
		{"the same page again", json(fmt.Sprintf(page, "1", "")), "more groups tenant:acme than there can be", 0},
		{"too much", func(w http.ResponseWriter, _ *http.Request) {
			for range answerMost>>10 + 1 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		}, "larger than 4 MiB", 0},
		{"closed", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "can't be reached: EOF", 0},
		{"closed half way", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"pagi`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "can't be reached: unexpected EOF", 0},
		{"slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "did not answer in time", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := provisioningtest.New(t)
			s.Behave(tt.fn)
			a := client(s)
			if tt.name == "slow" {
				a.client.Timeout = time.Millisecond
			}
			for _, err := range []error{a.Ensure(t.Context(), acme(), Adopt), a.Remove(t.Context(), "acme")} {
				f, is := err.(*Failure)
				if !is || !strings.Contains(f.Words, tt.words) || f.Wait != tt.wait || strings.Contains(f.Words, provisioningtest.Token) {
					t.Errorf("error %#v, want %q, wait %v", err, tt.words, tt.wait)
				}
			}
		})
	}
	t.Run("away", func(t *testing.T) {
		s := provisioningtest.New(t)
		s.Down()
		if err := client(s).Remove(t.Context(), "acme"); err == nil || !strings.Contains(err.Error(), "can't be reached: dial tcp") {
			t.Errorf("error %v, want that it can't be reached", err)
		}
	})
	t.Run("a certificate that nobody vouches for", func(t *testing.T) {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog = log.New(t.Output(), "", 0)
		s.StartTLS()
		defer s.Close()
		if err := NewAuthentik(s.URL, "x").Remove(t.Context(), "acme"); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("error %v, want that the certificate is refused", err)
		}
	})
}

func TestCheckURL(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://id.example.com": true, "https://id.example.com/": true, "https://id.example.com/auth": true, "https://id.example.com:9443": true,
		"http://localhost:9000": true, "http://127.0.0.1:9000/": true, "http://[::1]:9000": true,
		"http://id.example.com": false, "id.example.com": false, "https://": false, "https://me:x@id.example.com": false, "": false,
		"https://id.example.com/api/v3": false, "https://id.example.com/api/": false, "https://id.example.com?x=1": false, "https://id.example.com#x": false, "ftp://id.example.com": false,
	} {
		if why := CheckURL(address); (why == "") != ok {
			t.Errorf("CheckURL(%q) = %q, want right: %t", address, why, ok)
		}
	}
}
