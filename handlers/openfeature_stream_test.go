package handlers

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"
)

// changed waits until the SDK says that a flag changed, and passes over what else it says. The SDK says so
// after a fetch that was answered in full, also where it names no flag.
func (n *nodeSDK) changed(t testing.TB, flag string) {
	t.Helper()
	deadline := time.After(sdkPatience)
	var said []nodeLine
	for {
		select {
		case e := <-n.events:
			said = append(said, e)
			if e.Event == "PROVIDER_CONFIGURATION_CHANGED" && slices.Contains(e.FlagsChanged, flag) {
				return
			}
		case <-deadline:
			t.Fatalf("the SDK does not say that %s changed, but %s", flag, show(said))
		}
	}
}

// A change reaches the web provider, which polls nothing, by the event stream; whatever becomes of that.
func TestOpenFeatureStream(t *testing.T) {
	t.Parallel()
	s := startWitnessed(t)
	s.registry(t)
	s.want(t, http.StatusCreated, "POST /flags", `{"key":"beta","state":"targeted","scope":{"plans":["business"]}}`)
	n := startNode(t, "web", s.proxy.URL, s.tokens["evaluate"])
	acme, globex := map[string]any{"targetingKey": "acme"}, map[string]any{"targetingKey": "globex"}
	expect := func(flag string, value bool, reason string) {
		t.Helper()
		if got := n.details(t, sdkAsk{flag: flag}); got.Value != value || got.Reason != reason {
			t.Fatalf("%s is %s, want %t, %s", flag, show(got), value, reason)
		}
	}
	streams := func(times int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), sdkPatience)
		defer cancel()
		if err := s.witness.await(ctx, "stream 200", times); err != nil {
			t.Fatal(err)
		}
	}
	change := func(what, flag, patch string, value bool, reason string) {
		t.Helper()
		start := time.Now()
		s.want(t, http.StatusOK, "PATCH /flags/"+flag, patch)
		n.changed(t, flag)
		t.Logf("%s is told after %s", what, time.Since(start).Round(time.Millisecond))
		expect(flag, value, reason)
	}

	if _, err := n.call(t, "start", map[string]any{"context": acme}); err != nil {
		t.Fatal(err)
	}
	expect("calendar", true, "STATIC")
	streams(1)
	change("a kill", "calendar", `{"state":"off","pct":0}`, false, "DISABLED")
	change("a second change", "calendar", `{"state":"on"}`, true, "STATIC")
	expect("beta", true, "TARGETING_MATCH")

	// Another tenant has other flags, and a stream of its own.
	if _, err := n.call(t, "context", map[string]any{"context": globex}); err != nil {
		t.Fatal(err)
	}
	expect("beta", false, "DEFAULT")
	streams(2)
	change("a change to another tenant", "beta", `{"scope":{"plans":["business","starter"]}}`, true, "TARGETING_MATCH")

	// The registry counts too.
	s.want(t, http.StatusOK, "PATCH /tenants/globex", `{"plan":"enterprise"}`)
	n.changed(t, "beta")
	expect("beta", false, "DEFAULT")

	// The connection is lost, and what happens before it is back is told then.
	s.proxy.CloseClientConnections()
	change("a change while there is no stream", "calendar", `{"state":"off"}`, false, "DISABLED")
	streams(3)
	change("a change after that", "calendar", `{"state":"on"}`, true, "STATIC")

	// The stream's credential has expired when it is lost: the provider finds another.
	s.moveClock(3 * time.Hour)
	s.proxy.CloseClientConnections()
	streams(4)
	change("a change with a new credential", "calendar", `{"state":"off"}`, false, "DISABLED")
}
