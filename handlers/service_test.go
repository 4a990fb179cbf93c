package handlers

import (
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// discard is a log that nobody reads.
var discard = slog.New(slog.NewJSONHandler(io.Discard, nil))

// recorded is an answer of which only the status counts.
type recorded struct {
	header http.Header
	status int
}

func (w *recorded) Header() http.Header { return w.header }
func (w *recorded) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}
func (w *recorded) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}

func TestService(t *testing.T) {
	t.Parallel()
	s := start(t)
	tests := []struct {
		path, want string
		header     map[string]string
	}{
		{"/health", `{"status":"ok","service":"dezky-platform-api","version":"v1.2.3-test"}` + "\n",
			map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}},
		{"/ready", `{"status":"ready","database":"ok","replication":"off","identityProvider":"off"}` + "\n",
			map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}},
		{"/openapi.yaml", string(readSpec()),
			map[string]string{"Content-Type": "application/yaml", "Cache-Control": "no-cache"}},
		{"/docs", "",
			map[string]string{"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer",
				"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"}},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			for _, credentials := range []string{nobody, "Authorization: Bearer nonsense"} { // neither needed nor looked at
				got := s.want(t, 200, "GET "+tt.path, "", credentials)
				if tt.want != "" && got.body != tt.want {
					t.Errorf("body %.300s, want %.300s", got.body, tt.want)
				}
				for name, want := range tt.header {
					if value := got.header.Get(name); value != want {
						t.Errorf("%s: %q, want %q", name, value, want)
					}
				}
				if value := got.header.Get("X-Content-Type-Options"); value != "nosniff" {
					t.Errorf("X-Content-Type-Options: %q, want nosniff", value)
				}
			}
		})
	}
	if got := s.want(t, 303, "GET /", "", nobody).header.Get("Location"); got != "/operator/flags" {
		t.Errorf("/ leads to %q, want /operator/flags", got)
	}
}

// TestDocsPage holds that the page keeps to its policy, and that what it links to on this server is there.
func TestDocsPage(t *testing.T) {
	t.Parallel()
	s := start(t)
	page := s.want(t, 200, "GET /docs", "", nobody).body
	if !strings.HasPrefix(page, "<!doctype html>") && !strings.HasPrefix(page, "<!DOCTYPE html>") {
		t.Errorf("the page begins %.60q, want a doctype", page)
	}
	for _, forbidden := range []string{"<script", "<style", " style=", " onclick="} {
		if strings.Contains(page, forbidden) {
			t.Errorf("the page has %q, which its policy forbids", forbidden)
		}
	}
	links := regexp.MustCompile(`(?:href|src)="(/[^"#]*)`).FindAllStringSubmatch(page, -1)
	if len(links) == 0 {
		t.Error("the page has no style sheet")
	}
	for _, link := range links {
		s.want(t, 200, "GET "+link[1], "", nobody)
	}
	for _, id := range []string{"evaluateFlags", "deletePartner"} {
		if !strings.Contains(page, id) {
			t.Errorf("the page does not have %s", id)
		}
	}
}
