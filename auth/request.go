package auth

import (
	"errors"
	"net/http"
	"strings"
)

// ErrNoCredentials says that a request carries none.
var ErrNoCredentials = errors.New("no credentials")

// ErrCredentials says that a request's credentials can't be right: given twice, two kinds at once, or of
// an unknown scheme (RFC 6750 and RFC 9110 allow one).
var ErrCredentials = errors.New("ambiguous or unknown credentials")

// Bearer returns the principal of a request's Authorization or X-API-Key header. Beside ErrNoCredentials,
// ErrCredentials and ErrToken, an error means that it could not be found out.
func (ts *Tokens) Bearer(r *http.Request) (*Principal, error) {
	authorization, key := r.Header["Authorization"], r.Header["X-Api-Key"]
	switch len(authorization) + len(key) {
	case 0:
		return nil, ErrNoCredentials
	case 1:
	default:
		return nil, ErrCredentials
	}
	if len(key) == 1 {
		return ts.Verify(r.Context(), key[0])
	}
	scheme, secret, found := strings.Cut(authorization[0], " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return nil, ErrCredentials
	}
	return ts.Verify(r.Context(), strings.TrimLeft(secret, " "))
}
