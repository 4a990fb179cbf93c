package authtest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// codeLife is Authentik's default.
const codeLife = time.Minute

var scopesKnown = []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail}

// storage is what op asks for. It never asks for the rest: tokens, keys and userinfo are served without it.
type storage struct {
	op.Storage
	p *Provider
}

// authRequest is a sign-in under way. What a sign-in adds is set once, under the provider's lock; op gets
// copies.
type authRequest struct {
	id      string
	asked   oidc.AuthRequest
	expires time.Time

	sub, sid string
	authTime time.Time
}

func (a *authRequest) GetID() string                      { return a.id }
func (a *authRequest) GetACR() string                     { return acr }
func (a *authRequest) GetAMR() []string                   { return nil }
func (a *authRequest) GetAudience() []string              { return []string{a.asked.ClientID} }
func (a *authRequest) GetAuthTime() time.Time             { return a.authTime }
func (a *authRequest) GetClientID() string                { return a.asked.ClientID }
func (a *authRequest) GetNonce() string                   { return a.asked.Nonce }
func (a *authRequest) GetRedirectURI() string             { return a.asked.RedirectURI }
func (a *authRequest) GetResponseType() oidc.ResponseType { return a.asked.ResponseType }
func (a *authRequest) GetResponseMode() oidc.ResponseMode { return a.asked.ResponseMode }
func (a *authRequest) GetScopes() []string                { return a.asked.Scopes }
func (a *authRequest) GetState() string                   { return a.asked.State }
func (a *authRequest) GetSubject() string                 { return a.sub }
func (a *authRequest) Done() bool                         { return a.sub != "" }
func (a *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	return &oidc.CodeChallenge{Challenge: a.asked.CodeChallenge, Method: a.asked.CodeChallengeMethod}
}

// CreateAuthRequest keeps a request that op found well-formed, if it has PKCE.
func (s storage) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if asked.CodeChallenge == "" || asked.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("PKCE with S256 is required")
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	a := &authRequest{id: rand.Text(), asked: *asked}
	s.p.requests[a.id] = a
	return a, nil
}

func (s storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if a := s.p.requests[id]; a != nil {
		copied := *a
		return &copied, nil
	}
	return nil, errors.New("no such sign-in")
}

func (s storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.codes[code] = id
	return nil
}

// AuthRequestByCode uses a code up, whether or not the exchange succeeds.
func (s storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	a := s.p.requests[s.p.codes[code]]
	delete(s.p.codes, code)
	if a == nil || !s.p.time().Before(a.expires) {
		return nil, errors.New("no such code")
	}
	delete(s.p.requests, a.id)
	return a, nil
}

func (s storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	c, known := s.p.clients[id]
	if !known {
		return nil, errors.New("no such client")
	}
	if s.p.habits[NoRedirectURIs] {
		c.RedirectURIs = nil
	}
	return opClient{c: c, granted: !s.p.habits[NoGrantTypes]}, nil
}

func (s storage) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	if err := s.AuthorizeClientIDSecret(ctx, id, secret); err != nil {
		return nil, err
	}
	return s.GetClientByClientID(ctx, id)
}

func (s storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if c, known := s.p.clients[id]; !known || c.Secret != secret {
		return errors.New("no such client, or another secret")
	}
	return nil
}

func (s storage) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	scopes = slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool { return !slices.Contains(scopesKnown, scope) })
	return &oidc.JWTTokenRequest{Subject: ServiceSub(id), Scopes: scopes, Audience: oidc.Audience{id}}, nil
}

// KeySet is what op verifies id_token_hint with: after a rotation an older hint is refused, as by Authentik.
func (s storage) KeySet(context.Context) ([]op.Key, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return []op.Key{opKey{s.p.key}}, nil
}

// Health is asked when op is made.
func (s storage) Health(context.Context) error { return nil }

type opKey struct{ signingKey }

func (k opKey) ID() string                         { return k.id }
func (k opKey) Algorithm() jose.SignatureAlgorithm { return jose.SignatureAlgorithm(k.alg) }
func (k opKey) Use() string                        { return "sig" }
func (k opKey) Key() any                           { return k.Public() }

// opClient is a Client as op sees it. Op never asks for the rest, which is about making tokens.
type opClient struct {
	op.Client
	c       Client
	granted bool // false: Authentik's grant_types: []
}

func (c opClient) GetID() string                       { return c.c.ID }
func (c opClient) RedirectURIs() []string              { return c.c.RedirectURIs }
func (c opClient) PostLogoutRedirectURIs() []string    { return c.c.PostLogoutRedirectURIs }
func (c opClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c opClient) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodBasic }
func (c opClient) LoginURL(id string) string           { return signInPath + "?id=" + id }
func (c opClient) DevMode() bool                       { return false }
func (c opClient) IsScopeAllowed(string) bool          { return false }

func (c opClient) ResponseTypes() []oidc.ResponseType {
	if !c.granted {
		return nil
	}
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}

func (c opClient) GrantTypes() []oidc.GrantType {
	if !c.granted {
		return nil
	}
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeClientCredentials}
}
