package auth

import (
	"bytes"
	"reflect"
	"strconv"
	"testing"
	"time"
)

func TestSignInsAreUsedOnce(t *testing.T) {
	s, now := &SignIn{used: map[string]time.Time{}}, time.Now()
	until := now.Add(AttemptLasts)
	if !s.use("a", now, until) {
		t.Error("a new sign-in counts as used")
	}
	for _, at := range []time.Time{now, until.Add(-time.Second)} {
		if s.use("a", at, until) {
			t.Errorf("after %v a used sign-in counts as new", at.Sub(now))
		}
	}
	if !s.use("a", until, until.Add(AttemptLasts)) {
		t.Error("what has expired counts as used")
	}
}

// Whoever begins and ends sign-ins without end keeps nobody from signing in, and takes no more memory.
func TestSignInsInAFlood(t *testing.T) {
	s, now := &SignIn{used: map[string]time.Time{}}, time.Now()
	until := now.Add(AttemptLasts)
	for n := range 5 * usedMost {
		state := strconv.Itoa(n)
		if !s.use(state, now, until) {
			t.Fatalf("the new sign-in %d counts as used", n)
		}
		if old := n - usedMost + 1; old >= 0 && s.use(strconv.Itoa(old), now, until) {
			t.Fatalf("of %d, the used sign-in %d counts as new", n, old)
		}
		if kept := len(s.used) + len(s.older); kept > 2*usedMost {
			t.Fatalf("%d are remembered, want at most %d", kept, 2*usedMost)
		}
	}
}

func TestSessionTokensAreSealed(t *testing.T) {
	want := &tokens{ID: "an.id.token", Access: "an.access.token", AccessUntil: time.Now().UTC().Round(0), Groups: true}
	sealed, err := seal("id", want)
	if err != nil {
		t.Fatal(err)
	}
	session := &Session{id: "id"}
	session.row.Sealed = sealed
	if got, err := session.tokens(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("tokens() = %+v, %v, want %+v", got, err, want)
	}
	if bytes.Contains(sealed, []byte("token")) {
		t.Error("the seal shows what it holds")
	}
	again, err := seal("id", want)
	if err != nil || bytes.Equal(again, sealed) {
		t.Errorf("sealed twice alike, error %v", err)
	}
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)/2] ^= 1
	for name, s := range map[string]*Session{"another id": {id: "other"}, "damaged": {id: "id"}, "nothing": {id: "id"}} {
		s.row.Sealed = map[string][]byte{"another id": sealed, "damaged": damaged}[name]
		if got, err := s.tokens(); err == nil {
			t.Errorf("%s opens as %+v, want an error", name, got)
		}
	}
}
