package handlers_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/dezky/platform-api/auth"
	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/db/dbtest"
	"github.com/dezky/platform-api/handlers"
	"github.com/dezky/platform-api/seed"
)

// browserPage is an application's page, whose script is the sample of docs/openfeature.md. Browsers find the
// packages by the map, where an application has them bundled.
const browserPage = `<!doctype html><html lang="en"><title>Application</title><body>
<script type="importmap">{"imports": {
	"@openfeature/core": "/node_modules/@openfeature/core/dist/esm/index.js",
	"@openfeature/web-sdk": "/node_modules/@openfeature/web-sdk/dist/esm/index.js",
	"@openfeature/ofrep-web-provider": "/node_modules/@openfeature/ofrep-web-provider/index.esm.js",
	"@openfeature/ofrep-core": "/node_modules/@openfeature/ofrep-web-provider/node_modules/@openfeature/ofrep-core/index.esm.js"
}}</script>
<script type="module">
const token = async () => %q
%s
</script></body></html>`

// The sample for browsers runs in one, on a page of another origin, and a kill in the console reaches it without polling.
func TestConsoleOpenFeatureInThePage(t *testing.T) {
	t.Parallel()
	packages := handlers.NodeModules(t)
	needsBrowser(t)
	d := dbtest.Open(t)
	if err := seed.Plant(t.Context(), d, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	secret, _, err := d.CreateToken(t.Context(), maria.By(), db.NewToken{Name: "page", Role: "evaluate"})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	page := httptest.NewServer(mux)
	t.Cleanup(func() {
		page.CloseClientConnections()
		page.Close()
	})
	s := serve(t, d, func(_ *site, a *handlers.Appliance) { a.Origins = []string{page.URL} })
	script := strings.Replace(handlers.Sample(t, "js", "web-sdk"), "https://flags.example.com", s.url, 1)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, browserPage, secret, script) })
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {})
	mux.Handle("GET /node_modules/", http.StripPrefix("/node_modules/", http.FileServer(http.Dir(packages))))

	p := s.tab(auth.Principal{}, look{})
	p.do(chromedp.Navigate(page.URL))
	p.wait(`document.body.dataset.compose === 'new'`)

	operator := s.tab(maria, look{})
	operator.openLive("/operator/flags/webmail_compose_v3")
	start := time.Now()
	operator.click("#kill")
	p.wait(`document.body.dataset.compose === 'old'`)
	t.Logf("the page has it %v after the click", time.Since(start).Round(time.Millisecond))
	asked := s.count(`^POST /ofrep/`)
	operator.clickText("#now", "Undo kill")
	p.wait(`document.body.dataset.compose === 'new'`)
	if n := s.count(`^POST /ofrep/`); n != asked+1 {
		t.Errorf("for the undo the page asked %d times, want once", n-asked)
	}
}
