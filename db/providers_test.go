package db

import (
	"reflect"
	"testing"
	"time"
)

func TestProvidersAreKept(t *testing.T) {
	c := newClock()
	dir := t.TempDir()
	d := openTest(t, Options{Now: c.now, Dir: dir})
	if got := must(d.Providers(t.Context()))(t); len(got) != 0 {
		t.Errorf("Providers() of a new database = %v, want none", got)
	}
	a := Provider{URL: "https://a.example/", Document: `{"issuer":"https://a.example/"}`, Keys: `{"keys":[]}`, FetchedAt: c.now()}
	b := Provider{URL: "https://b.example/", Document: `{}`, Keys: `{"keys":[{"kid":"1"}]}`, FetchedAt: c.now().Add(time.Second)}
	before := d.Current()
	for _, p := range []Provider{b, a} {
		if err := d.PutProvider(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if d.Current() != before {
		t.Error("a provider made a new snapshot")
	}
	if got, want := must(d.Providers(t.Context()))(t), []Provider{a, b}; !reflect.DeepEqual(got, want) {
		t.Errorf("Providers() = %+v\nwant %+v", got, want)
	}

	a.Keys, a.FetchedAt = `{"keys":[{"kid":"2"}]}`, c.now().Add(time.Hour)
	if err := d.PutProvider(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]Provider{
		"document that is no JSON":   {URL: a.URL, Document: "<html>", Keys: "{}"},
		"document that is no object": {URL: a.URL, Document: "[]", Keys: "{}"},
		"keys that are no JSON":      {URL: a.URL, Document: "{}", Keys: ""},
		"keys that are no object":    {URL: a.URL, Document: "{}", Keys: "1"},
	} {
		if err := d.PutProvider(t.Context(), bad); err == nil {
			t.Errorf("PutProvider took a %s", name)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := must(openTest(t, Options{Now: c.now, Dir: dir}).Providers(t.Context()))(t), []Provider{a, b}; !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart Providers() = %+v\nwant %+v", got, want)
	}
}
