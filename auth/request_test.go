package auth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
)

func TestBearer(t *testing.T) {
	d := dbtest.Open(t)
	secret, _ := create(t, d, db.NewToken{Name: "ci", Role: "read"})
	other, _ := create(t, d, db.NewToken{Name: "other", Role: "read"})
	ts := newTokens(d, time.Now)
	tests := []struct {
		name string
		head http.Header
		want any // a principal's name or an error
	}{
		{"none", http.Header{}, ErrNoCredentials},
		{"a cookie", http.Header{"Cookie": {"session=" + secret}}, ErrNoCredentials},
		{"bearer", http.Header{"Authorization": {"Bearer " + secret}}, "token:ci"},
		{"bearer in lower case", http.Header{"Authorization": {"bearer " + secret}}, "token:ci"},
		{"bearer in upper case, with two spaces", http.Header{"Authorization": {"BEARER  " + secret}}, "token:ci"},
		{"key", http.Header{"X-Api-Key": {secret}}, "token:ci"},
		{"bearer, unknown", http.Header{"Authorization": {"Bearer dzk_" + strings.Repeat("A", 43)}}, ErrToken},
		{"key, unknown", http.Header{"X-Api-Key": {"dzk_" + strings.Repeat("A", 43)}}, ErrToken},
		{"bearer of something else", http.Header{"Authorization": {"Bearer eyJhbGciOiJub25lIn0.e30."}}, ErrToken},
		{"bearer of nothing", http.Header{"Authorization": {"Bearer "}}, ErrToken},
		{"bearer alone", http.Header{"Authorization": {"Bearer"}}, ErrCredentials},
		{"authorization empty", http.Header{"Authorization": {""}}, ErrCredentials},
		{"key empty", http.Header{"X-Api-Key": {""}}, ErrToken},
		{"no scheme", http.Header{"Authorization": {secret}}, ErrCredentials},
		{"a tab for a space", http.Header{"Authorization": {"Bearer\t" + secret}}, ErrCredentials},
		{"basic", http.Header{"Authorization": {"Basic Y2k6c2VjcmV0"}}, ErrCredentials},
		{"basic with a token", http.Header{"Authorization": {"Basic " + secret}}, ErrCredentials},
		{"two in one", http.Header{"Authorization": {"Bearer " + secret + ", Bearer " + secret}}, ErrToken},
		{"bearer twice", http.Header{"Authorization": {"Bearer " + secret, "Bearer " + other}}, ErrCredentials},
		{"bearer twice the same", http.Header{"Authorization": {"Bearer " + secret, "Bearer " + secret}}, ErrCredentials},
		{"key twice", http.Header{"X-Api-Key": {secret, secret}}, ErrCredentials},
		{"both", http.Header{"Authorization": {"Bearer " + secret}, "X-Api-Key": {secret}}, ErrCredentials},
		{"both, one empty", http.Header{"Authorization": {"Bearer " + secret}, "X-Api-Key": {""}}, ErrCredentials},
		{"bearer beside a cookie", http.Header{"Authorization": {"Bearer " + secret}, "Cookie": {"session=x"}}, "token:ci"},
		{"17 KB bearer", http.Header{"Authorization": {"Bearer dzk_" + strings.Repeat("A", 17<<10)}}, ErrToken},
		{"17 KB of another scheme", http.Header{"Authorization": {strings.Repeat("A", 17<<10)}}, ErrCredentials},
		{"17 KB key", http.Header{"X-Api-Key": {secret + strings.Repeat("A", 17<<10)}}, ErrToken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// A token in the query is nobody's: addresses end up in logs.
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/flags?access_token="+secret+"&api_key="+secret, nil)
			r.Header = tt.head
			p, err := Bearers{Tokens: ts}.Principal(r)
			var got any = err
			if err == nil {
				got = p.Name
			}
			if got != tt.want || (p != nil) != (err == nil) {
				t.Errorf("Principal = %+v, %v, want %v", p, err, tt.want)
			}
		})
	}
	if got := known(ts); got != 1 {
		t.Errorf("%d tokens are remembered, want the good one only", got)
	}
}
