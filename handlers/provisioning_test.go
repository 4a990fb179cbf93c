package handlers

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/provisioning"
	"github.com/dezky/platform-api/provisioning/provisioningtest"
	"github.com/dezky/platform-api/seed"
)

// startProvisioned starts a server with the seeds, and an Authentik that it has not asked yet. Nothing works
// the queue off: only who reconciles asks Authentik.
func startProvisioned(t *testing.T) (*running, *provisioningtest.Server) {
	t.Helper()
	authentik := provisioningtest.New(t)
	s := listen(t, readSpec())
	s.db = dbtest.OpenAt(t, t.TempDir(), s.now, provisioning.Name)
	a := appliance(t, s.db, s.now, s.opts.Log, s.url)
	a.Provisioning = provisioning.New(provisioning.Options{DB: s.db, Now: s.now, Log: s.opts.Log,
		Authentik: provisioning.NewAuthentik(authentik.URL, provisioningtest.Token)})
	if err := s.Start(a); err != nil {
		t.Fatal(err)
	}
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	if err := seed.Plant(t.Context(), s.db, false, s.now()); err != nil {
		t.Fatal(err)
	}
	return s, authentik
}

// A person has a tenant reconciled, twice; no revision, no history and no evaluation's ETag is for it.
func TestReconcile(t *testing.T) {
	t.Parallel()
	s, authentik := startProvisioned(t)
	const evaluate, dezky = "POST /flags/evaluate", `{"tenantSlug":"dezky"}`
	etag := s.want(t, 200, evaluate, dezky).header.Get("ETag")
	history := s.want(t, 200, "GET /history", "").body

	pending := decode[tenantJSON](t, s.want(t, 200, "GET /tenants/dezky", ""))
	if got := pending.ProvisioningStatus["authentik"]; got != "pending" {
		t.Errorf("before, the tenant is %s, want pending", got)
	}
	for range 2 {
		answer := decode[tenantJSON](t, s.want(t, 200, "POST /tenants/dezky/reconcile", ""))
		if !maps.Equal(answer.ProvisioningStatus, map[string]string{"authentik": "ok"}) || len(answer.ProvisioningErrors) != 0 || answer.UpdatedAt != pending.UpdatedAt {
			t.Errorf("reconcile = %+v, want ok, and the rest as it was", answer)
		}
		if listed := decode[[]tenantJSON](t, s.want(t, 200, "GET /tenants", "")); listed[0].ProvisioningStatus["authentik"] != "ok" {
			t.Errorf("GET /tenants = %+v, want ok at once", listed)
		}
		if groups := authentik.Groups(""); len(groups) != 1 || groups[0].Name != "tenant:dezky" {
			t.Errorf("there are the groups %v, want tenant:dezky once", groups)
		}
	}
	s.want(t, 304, evaluate, dezky, "If-None-Match: "+etag)
	if now := s.want(t, 200, "GET /history", "").body; now != history {
		t.Errorf("the history is %s, before it was %s", now, history)
	}
}

func TestReconcileFails(t *testing.T) {
	t.Parallel()
	s, authentik := startProvisioned(t)
	authentik.Behave(func(w http.ResponseWriter, _ *http.Request) {
		provisioningtest.Detail(w, http.StatusForbidden, "Token invalid/expired")
	})
	s.want(t, 201, "POST /tenants", `{"slug":"acme","name":"Acme","plan":"starter"}`)
	answer := decode[tenantJSON](t, s.want(t, 200, "POST /tenants/dezky/reconcile", ""))
	if answer.ProvisioningStatus["authentik"] != "error" || !strings.Contains(answer.ProvisioningErrors["authentik"], "Token invalid/expired") {
		t.Errorf("reconcile = %+v, want an error and why", answer)
	}
	metrics := samplesOf(s.want(t, 200, "GET /metrics", "").body)
	for _, want := range []string{"platform_api_provisioning_pending 1", "platform_api_provisioning_errors 1", "platform_api_ready 1"} {
		if !metrics[want] {
			t.Errorf("no %s", want)
		}
	}
	s.want(t, 200, "GET /ready", "", nobody)
	s.want(t, 204, "DELETE /tenants/dezky", "")
	s.want(t, 404, "POST /tenants/dezky/reconcile", "")
	if strings.Contains(s.log.String(), provisioningtest.Token) {
		t.Error("the log has the token")
	}
}

// Without an integration the tenant stays as it was seeded, for operators alone.
func TestReconcileNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	if err := seed.Plant(t.Context(), s.db, false, s.now()); err != nil {
		t.Fatal(err)
	}
	before := s.want(t, 200, "GET /tenants/dezky", "").body
	if got := s.want(t, 200, "POST /tenants/dezky/reconcile", "").body; got != before || !strings.Contains(got, `"provisioningStatus":{"authentik":"ok"}`) {
		t.Errorf("reconcile = %s, want %s", got, before)
	}
	s.want(t, 404, "POST /tenants/nobody/reconcile", "")
	s.want(t, 403, "POST /tenants/dezky/reconcile", "", s.as("read"))
	if text := s.want(t, 200, "GET /metrics", "").body; strings.Contains(text, "platform_api_provisioning") {
		t.Error("there are metrics of provisioning")
	}

	provider := authtest.New(t, authtest.Options{})
	portal := trusting(t, provider)
	portal.want(t, 403, "POST /tenants/acme/reconcile", "", bearer(provider.AccessToken(authtest.PortalID, authtest.AcmeSub)))
}
