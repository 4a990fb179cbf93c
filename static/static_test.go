package static_test

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/dezky/platform-api/static"
)

func get(t *testing.T, method, path string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	static.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Result()
}

func TestURL(t *testing.T) {
	for _, name := range []string{"css/tokens.css", "css/docs.css"} {
		stem := name[:len(name)-len(".css")]
		want := regexp.MustCompile(`^/static/` + stem + `\.[0-9a-f]{16}\.css$`)
		if got := static.URL(name); !want.MatchString(got) {
			t.Errorf("URL(%q) = %q, want a match of %s", name, got, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("URL of an unknown name did not panic")
		}
	}()
	static.URL("css/none.css")
}

func TestHandlerServesAFileForEver(t *testing.T) {
	want, err := os.ReadFile("css/docs.css")
	if err != nil {
		t.Fatal(err)
	}
	r := get(t, http.MethodGet, static.URL("css/docs.css"))
	got, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
		t.Errorf("status %d and %d bytes, want 200 and the %d bytes of css/docs.css", r.StatusCode, len(got), len(want))
	}
	for header, want := range map[string]string{
		"Content-Type":  "text/css; charset=utf-8",
		"Cache-Control": "public, max-age=31536000, immutable",
	} {
		if got := r.Header.Get(header); got != want {
			t.Errorf("%s = %q, want %q", header, got, want)
		}
	}
	if r := get(t, http.MethodHead, static.URL("css/docs.css")); r.StatusCode != http.StatusOK {
		t.Errorf("HEAD: status %d, want 200", r.StatusCode)
	}
}

func TestHandlerKnowsNothingElse(t *testing.T) {
	for _, path := range []string{
		"/static/",
		"/static/css/",
		"/static/css/docs.css",
		"/static/css/docs.0000000000000000.css",
		"/static/static.go",
		"/static/../static.go",
	} {
		r := get(t, http.MethodGet, path)
		if r.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: status %d, want 404", path, r.StatusCode)
		}
		if got := r.Header.Get("Cache-Control"); got != "" {
			t.Errorf("GET %s: Cache-Control %q, want none", path, got)
		}
	}
}

// What is read must stand out from what is behind it (WCAG 2.2: 4.5 for text, 3 for the outline of a
// control), in both themes.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("css/tokens.css")
	if err != nil {
		t.Fatal(err)
	}
	type theme map[string]float64 // luminance by token
	themes := []theme{{}, {}}
	for _, m := range regexp.MustCompile(`--([a-z0-9-]+):\s*light-dark\(#([0-9A-F]{6}), #([0-9A-F]{6})\)`).FindAllStringSubmatch(string(css), -1) {
		themes[0][m[1]], themes[1][m[1]] = luminance(t, m[2]), luminance(t, m[3])
	}
	check := func(front string, least float64, backs ...string) {
		for i, name := range []string{"light", "dark"} {
			for _, back := range backs {
				a, okA := themes[i][front]
				b, okB := themes[i][back]
				ratio := (max(a, b) + .05) / (min(a, b) + .05)
				if !okA || !okB || ratio < least {
					t.Errorf("%s on %s, %s: contrast %.2f, want at least %.1f", front, back, name, ratio, least)
				}
			}
		}
	}
	check("text", 4.5, "surface", "canvas", "raised", "sunken", "hover", "selected")
	check("text-2", 4.5, "surface", "canvas", "raised", "sunken", "hover", "selected")
	check("text-3", 4.5, "surface", "canvas", "raised", "sunken", "hover", "selected")
	check("on-ink", 4.5, "ink")
	check("on-danger", 4.5, "danger")
	for _, name := range []string{"off", "on", "targeted", "rollout", "gain", "lose", "danger", "accent"} {
		check(name, 4.5, name+"-bg", "surface", "canvas", "sunken")
	}
	check("line-strong", 3, "surface", "canvas")
}

// luminance is WCAG's relative luminance of a colour RRGGBB.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	channel := func(shift int) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= .04045 {
			return c / 12.92
		}
		return math.Pow((c+.055)/1.055, 2.4)
	}
	return .2126*channel(16) + .7152*channel(8) + .0722*channel(0)
}
