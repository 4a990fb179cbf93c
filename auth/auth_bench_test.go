package auth

import (
	"errors"
	"fmt"
	"testing"

	"github.com/dezky/platform-api/auth/authtest"
	"github.com/dezky/platform-api/db/dbtest"
)

// A token that was verified before: the wanted most is 3 µs.
func BenchmarkBearerAgain(b *testing.B) {
	x := trusts(b, authtest.New(b, authtest.Options{}), dbtest.Open(b))
	token := x.service()
	x.want(b, nil, token)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.JWTs.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBearerAgainInParallel(b *testing.B) {
	x := trusts(b, authtest.New(b, authtest.Options{}), dbtest.Open(b))
	tokens := make([]string, 100)
	for n := range tokens {
		tokens[n] = x.service()
		x.want(b, nil, tokens[n])
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			if _, err := x.JWTs.Verify(b.Context(), tokens[n%len(tokens)]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// A token that was not seen before: the wanted most is 200 µs.
func BenchmarkBearerFirst(b *testing.B) {
	for _, alg := range algorithmNames {
		b.Run(alg, func(b *testing.B) {
			x := trusts(b, authtest.New(b, authtest.Options{Alg: alg}), dbtest.Open(b))
			token := x.service()
			x.want(b, nil, token)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.JWTs.verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a bad token costs: whether it is refused by its look, by its key or by its signature.
func BenchmarkBearerRefused(b *testing.B) {
	x := trusts(b, authtest.New(b, authtest.Options{}), dbtest.Open(b))
	good := x.service()
	x.want(b, nil, good)
	claims := x.provider.Claims(authtest.ServiceID, authtest.OpsSub)
	for name, token := range map[string]string{
		"signature":   x.provider.Token(claims, authtest.SignedWith(newKey(b, "RS256"))),
		"unknown kid": x.strange("theirs"),
		"HS256":       x.provider.Token(claims, authtest.SignedWith([]byte("secret"))),
		"rubbish":     "a.b.c",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.JWTs.Verify(b.Context(), token); !errors.Is(err, ErrToken) {
					b.Fatal(err)
				}
			}
		})
	}
}

// Tokens that are each new, with a cache that is full.
func BenchmarkBearerFirstInAFullCache(b *testing.B) {
	x := trusts(b, authtest.New(b, authtest.Options{Alg: "ES256"}), dbtest.Open(b))
	claims := x.provider.Claims(authtest.ServiceID, authtest.OpsSub)
	tokens := make([]string, 2*cachedMost)
	for n := range tokens {
		claims["uid"] = fmt.Sprint(n)
		tokens[n] = x.provider.Token(claims)
		x.want(b, nil, tokens[n])
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x.JWTs.Verify(b.Context(), tokens[n%len(tokens)]); err != nil {
			b.Fatal(err)
		}
		n++
	}
}
