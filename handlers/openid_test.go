package handlers

import (
	"context"
	"sync"
	"testing"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
)

// The groups and audiences of the tests' servers.
var (
	testGroups = auth.Groups{Operator: "dezky-operators", Read: "dezky-viewers"}
	testKinds  = map[string]auth.Kind{authtest.ServiceID: auth.KindService, authtest.BareID: auth.KindService, authtest.PortalID: auth.KindPortal}
)

// trusting starts a server with a small registry to which people sign in through the provider, and which
// accepts the tokens of its services and of its portal, and of more.
func trusting(t testing.TB, p *authtest.Provider, more ...auth.Audience) *running {
	t.Helper()
	s := trustingIn(t, p, t.TempDir(), more...)
	for _, role := range db.TokenRoles {
		s.token(t, db.NewToken{Name: role, Role: role})
	}
	s.registry(t)
	return s
}

// trustingIn is trusting on the database in dir, as a restart is, with nothing put into it.
func trustingIn(t testing.TB, p *authtest.Provider, dir string, more ...auth.Audience) *running {
	t.Helper()
	return trustingAt(t, p, p.Issuer(), dir, more...)
}

// trustingAt is trustingIn where the provider is reached by another address.
func trustingAt(t testing.TB, p *authtest.Provider, issuer, dir string, more ...auth.Audience) *running {
	t.Helper()
	s := listen(t, readSpec())
	p.PutClient(authtest.Console(s.url))
	s.trust(t, issuer, dir, testKinds, more...)
	return s
}

// trust starts a server that listens, on the database in dir, with an issuer and the kinds of its audiences.
func (s *running) trust(t testing.TB, issuer, dir string, kinds map[string]auth.Kind, more ...auth.Audience) {
	t.Helper()
	s.dir, s.db = dir, dbtest.OpenAt(t, dir, s.now)
	a := appliance(t, s.db, s.now, s.opts.Log, s.url)
	a.Links = nil
	o := auth.OpenIDOptions{DB: s.db, Sessions: a.Sessions, Client: &auth.Client{Issuer: issuer, ID: authtest.ConsoleID, Secret: authtest.Secret(authtest.ConsoleID)},
		Groups: testGroups, Audiences: more, PublicURL: s.url, Now: s.now, Log: s.opts.Log}
	for id, kind := range kinds {
		o.Audiences = append(o.Audiences, auth.Audience{Kind: kind, Issuer: issuer, Name: id})
	}
	ctx, stop := context.WithCancel(context.Background())
	var err error
	if a.OpenID, err = auth.NewOpenID(ctx, o); err != nil {
		t.Fatal(err)
	}
	var background sync.WaitGroup
	background.Go(func() { a.OpenID.Run(ctx) })
	t.Cleanup(func() {
		stop()
		background.Wait()
	})
	if err := s.Start(a); err != nil {
		t.Fatal(err)
	}
}
