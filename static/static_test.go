package static_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
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
	for _, name := range []string{"console.css", "console.js", "docs.css", "icon.svg"} {
		stem, ext, _ := strings.Cut(name, ".")
		want := regexp.MustCompile(`^/static/` + stem + `\.[0-9a-f]{16}\.` + ext + `$`)
		if got := static.URL(name); !want.MatchString(got) {
			t.Errorf("URL(%q) = %q, want a match of %s", name, got, want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("URL of an unknown name did not panic")
		}
	}()
	static.URL("none.css")
}

func TestHandlerServesABundleForEver(t *testing.T) {
	var want []byte
	for _, name := range []string{"css/tokens.css", "css/docs.css"} {
		part, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, part...)
	}
	r := get(t, http.MethodGet, static.URL("docs.css"))
	got, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
		t.Errorf("status %d and %d bytes, want 200 and the %d bytes of the bundle", r.StatusCode, len(got), len(want))
	}
	for header, want := range map[string]string{
		"Content-Type":  "text/css; charset=utf-8",
		"Cache-Control": "public, max-age=31536000, immutable",
		"Vary":          "Accept-Encoding",
	} {
		if got := r.Header.Get(header); got != want {
			t.Errorf("%s = %q, want %q", header, got, want)
		}
	}
	if r := get(t, http.MethodHead, static.URL("docs.css")); r.StatusCode != http.StatusOK {
		t.Errorf("HEAD: status %d, want 200", r.StatusCode)
	}
}

func TestHandlerCompresses(t *testing.T) {
	plain, err := io.ReadAll(get(t, http.MethodGet, static.URL("console.js")).Body)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, static.URL("console.js"), nil)
	r.Header.Set("Accept-Encoding", "br, gzip")
	static.Handler().ServeHTTP(w, r)
	z, err := gzip.NewReader(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(got, plain) || w.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("compressed: %v, %d bytes, Content-Encoding %q; want the %d bytes by gzip", err, len(got), w.Header().Get("Content-Encoding"), len(plain))
	}
}

func TestHandlerKnowsNothingElse(t *testing.T) {
	for _, path := range []string{
		"/static/",
		"/static/css/",
		"/static/docs.css",
		"/static/docs.0000000000000000.css",
		"/static/vendor/htmx.min.js",
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
	themes := tokens(t)
	check := func(front string, least float64, backs ...string) {
		for i, name := range []string{"light", "dark"} {
			for _, back := range backs {
				a, okA := themes[i][front]
				b, okB := themes[i][back]
				ratio := contrast(a, b)
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
	check("accent", 3, "surface", "canvas", "raised", "sunken", "hover", "selected") // the focus ring is of it
	if css, err := os.ReadFile("css/tokens.css"); err != nil || !regexp.MustCompile(`--focus:\s*var\(--accent\);`).Match(css) {
		t.Error("the focus ring's colour is not the accent, which is what was checked")
	}
}

// The ratios that the palette was chosen for, in both themes.
func TestContrastIsAsChosen(t *testing.T) {
	themes := tokens(t)
	for _, want := range []struct {
		front, back string
		light, dark float64
	}{
		{"text", "surface", 17.96, 15.89}, {"text-2", "sunken", 7.74, 10.00},
		{"text-3", "surface", 5.73, 6.51}, {"text-3", "canvas", 5.30, 6.92}, {"text-3", "sunken", 5.11, 6.73}, {"text-3", "selected", 5.15, 5.74}, {"text-3", "raised", 5.73, 6.02},
		{"on-ink", "ink", 16.53, 15.59}, {"accent", "surface", 5.73, 7.80}, {"danger", "surface", 6.02, 7.57}, {"on-danger", "danger", 6.02, 7.56},
		{"off", "off-bg", 5.59, 6.72}, {"on", "on-bg", 5.07, 7.74}, {"targeted", "targeted-bg", 5.48, 7.17}, {"rollout", "rollout-bg", 5.52, 8.36},
		{"gain", "gain-bg", 5.00, 6.70}, {"lose", "lose-bg", 5.90, 7.81}, {"line-strong", "surface", 3.59, 4.38}, {"line-strong", "canvas", 3.32, 4.66},
	} {
		for i, least := range []float64{want.light, want.dark} {
			if got := contrast(themes[i][want.front], themes[i][want.back]); math.Abs(got-least) > 0.01 {
				t.Errorf("%s on %s, %s: contrast %.2f, want %.2f", want.front, want.back, []string{"light", "dark"}[i], got, least)
			}
		}
	}
	for _, bar := range []string{"off", "on", "targeted", "rollout"} { // fills are on sunken
		for i, name := range []string{"light", "dark"} {
			if got := contrast(themes[i][bar], themes[i]["sunken"]); got < 5.10 {
				t.Errorf("the bar of %s, %s: contrast %.2f, want at least 5.10", bar, name, got)
			}
		}
	}
}

// Vendored files are the published ones, byte by byte: npm's htmx.org 4.0.1.
func TestVendoredFilesAreAsPublished(t *testing.T) {
	for name, want := range map[string]string{
		"vendor/htmx.min.js":   "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
		"vendor/hx-sse.min.js": "18ef2761356ec1fe0bb6d92612315b37517a7c1e9856b661c5ae81fef239d103",
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
			t.Errorf("sha256 of %s: %x, want %s", name, sum, want)
		}
	}
}

// What a first visit loads, compressed, in bytes.
func TestBundlesAreSmall(t *testing.T) {
	const most = 40_000
	total := 0
	for _, name := range []string{"console.css", "console.js"} {
		r := httptest.NewRequest(http.MethodGet, static.URL(name), nil)
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		static.Handler().ServeHTTP(w, r)
		total += w.Body.Len()
	}
	if total > most {
		t.Errorf("console.css and console.js are %d bytes, want at most %d", total, most)
	}
	t.Logf("%d bytes", total)
}

// tokens are the luminances of the colours by name, in the light and in the dark theme.
func tokens(t *testing.T) [2]map[string]float64 {
	t.Helper()
	css, err := os.ReadFile("css/tokens.css")
	if err != nil {
		t.Fatal(err)
	}
	themes := [2]map[string]float64{{}, {}}
	for _, m := range regexp.MustCompile(`--([a-z0-9-]+):\s*light-dark\(#([0-9A-F]{6}), #([0-9A-F]{6})\)`).FindAllStringSubmatch(string(css), -1) {
		themes[0][m[1]], themes[1][m[1]] = luminance(t, m[2]), luminance(t, m[3])
	}
	return themes
}

// contrast is WCAG's ratio of two luminances.
func contrast(a, b float64) float64 { return (max(a, b) + .05) / (min(a, b) + .05) }

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
