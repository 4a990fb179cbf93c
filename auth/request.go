package auth

import (
	"errors"
	"net/http"
	"strings"

	"github.com/dezky/platform-api/db"
)

// ErrNoCredentials says that a request carries none.
var ErrNoCredentials = errors.New("no credentials")

// ErrCredentials says that a request's credentials can't be right: given twice, two kinds at once, or of
// an unknown scheme (RFC 6750 and RFC 9110 allow one).
var ErrCredentials = errors.New("ambiguous or unknown credentials")

// Bearers knows whoever shows a credential with each request: API tokens, and JWTs where issuers of them
// are trusted.
type Bearers struct {
	Tokens *Tokens
	JWTs   *JWTs // nil: none is trusted
}

// Principal returns who a request's Authorization or X-API-Key header stands for. Beside ErrNoCredentials,
// ErrCredentials, ErrToken and ErrProviderAway, an error means that it could not be found out.
func (b Bearers) Principal(r *http.Request) (*Principal, error) {
	authorization, key := r.Header["Authorization"], r.Header["X-Api-Key"]
	switch len(authorization) + len(key) {
	case 0:
		return nil, ErrNoCredentials
	case 1:
	default:
		return nil, ErrCredentials
	}
	if len(key) == 1 {
		return b.Tokens.Verify(r.Context(), key[0])
	}
	scheme, secret, found := strings.Cut(authorization[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return nil, ErrCredentials
	}
	secret = strings.TrimLeft(secret, " ")
	if b.JWTs != nil && !strings.HasPrefix(secret, db.TokenPrefix) {
		return b.JWTs.Verify(r.Context(), secret)
	}
	return b.Tokens.Verify(r.Context(), secret)
}
