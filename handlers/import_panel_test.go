package handlers_test

import (
	"bytes"
	"context"
	"html"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// upload sends the form of an import, as a browser does.
func (rd *reader) upload(file, name, pasted, does string, headers ...string) answer {
	rd.t.Helper()
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	part, err := form.CreateFormFile("file", name)
	if err == nil {
		_, err = io.WriteString(part, file)
	}
	if err == nil {
		err = form.WriteField("rows", pasted)
	}
	if err == nil {
		err = form.WriteField("do", does)
	}
	if err == nil {
		err = form.Close()
	}
	if err != nil {
		rd.t.Fatal(err)
	}
	return rd.sendBody(&b, append(headers, "Content-Type", form.FormDataContentType())...)
}

func (rd *reader) sendBody(body io.Reader, headers ...string) answer {
	rd.t.Helper()
	h := map[string]string{}
	for i := 0; i < len(headers); i += 2 {
		h[headers[i]] = headers[i+1]
	}
	status, text := rd.ask(rd.cookies[0], http.MethodPost, importPath, body, h)
	return answer{&http.Response{StatusCode: status, Request: &http.Request{URL: &url.URL{Path: importPath}}}, text}
}

const importPath = "/operator/tenants/import"

// hold keeps the database's turn to write until release is called.
func (s *site) hold() (release func()) {
	s.t.Helper()
	held, gate, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	rows, err := flags.DecodeTenantLines(strings.NewReader(`{"slug":"held","name":"Held","plan":"starter"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(over)
		_, err := s.db.ImportTenants(context.WithoutCancel(s.t.Context()), jonas.By(), rows, db.TenantImport{DryRun: true, Progress: func(int, int) {
			close(held)
			<-gate
		}})
		if err != nil {
			s.t.Error(err)
		}
	}()
	<-held
	release = sync.OnceFunc(func() {
		close(gate)
		<-over
	})
	s.t.Cleanup(release)
	return release
}

func TestPagesImport(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd := s.reader(maria)
	const table = "slug,name,plan\nnew-one,New One,business\nstudio-kaj,Studio Kaj,enterprise\n"
	const lines = `  {"slug":"new-two","name":"New Two","plan":"starter"}` + "\n"
	before := s.db.Current()
	for _, x := range []struct {
		name, file, fileName, pasted, does string
		status                             int
		want                               string
	}{
		{"nothing", "", "", "", "check", 422, "There are no rows; choose a file or paste some. Nothing was changed."},
		{"both", table, "t.csv", lines, "check", 422, "Choose a file or paste rows, not both."},
		{"neither format", "PK\x03\x04\xff", "t.xlsx", "", "check", 400, "is not a known column"},
		{"lines called a table", lines, "T.CSV", "", "check", 400, "<b>Line 1</b>"},
		{"a table called lines", table, "t.jsonl", "", "check", 400, "<b>Line 1</b> is not JSON"},
		{"too many rows", strings.Repeat("{}\n", 100_001), "t.ndjson", "", "import", 413, "An import has at most 100000 tenants. Nothing was changed."},
		{"too many bytes", strings.Repeat(strings.Repeat(" ", 60<<10)+"\n", 1100), "t.ndjson", "", "import", 413, "The rows have more than 64 MiB, which is the most at once. Nothing was changed."},
		{"bad rows", "slug,name,plan\nok,Ok,starter\nbad,,gold\n", "t.csv", "", "import", 422, "<b>Line 3</b> <code>plan</code> must be a known plan"},
		{"a check by name", table, "t.csv", "", "check", 200, "1 created, 1 changed, 0 unchanged."},
		{"a check by how it begins", "", "", lines, "check", 200, "Import 1 tenant</button>"},
		{"another word is a check", table, "t", "", "save", 200, "The rows are right."},
	} {
		a := rd.upload(x.file, x.fileName, x.pasted, x.does)
		if a.StatusCode != x.status || !strings.Contains(a.text, x.want) {
			t.Errorf("%s: %d, want %d and %q in\n%s", x.name, a.StatusCode, x.status, x.want, a.all(`(?s)id="import-state">(.*)</div></section>`))
		}
		if x.pasted != "" && x.file == "" {
			a.contains(t, html.EscapeString(strings.TrimSuffix(x.pasted, "\n"))) // given back
		}
	}
	a := rd.post(importPath, url.Values{"do": {"import"}, "rows": {table}}, http.StatusUnsupportedMediaType, "")
	a.contains(t, "The form must be sent as multipart/form-data.")
	for _, who := range []struct {
		rd      *reader
		headers []string
	}{{s.reader(viewer), nil}, {rd, []string{"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site"}}} {
		equal(t, "status of another's", who.rd.upload(table, "t.csv", "", "import", who.headers...).StatusCode, http.StatusForbidden)
	}
	viewing := s.reader(viewer)
	for _, path := range []string{importPath, importPath + "/progress", "/operator/reconcile"} {
		equal(t, "GET "+path+" by a viewer", viewing.send(http.MethodGet, path, nil).StatusCode, http.StatusForbidden)
	}
	viewing.page("/operator/tenants").lacks(t, importPath)
	if s.db.Current() != before {
		t.Fatal("something was changed")
	}
	rd.upload(table, "t.csv", "", "import").contains(t, "Imported: 1 created, 1 changed, 0 unchanged.")
	equal(t, "the new plan", s.db.Current().Tenant("studio-kaj").Plan, "enterprise")
	for _, slug := range []string{"new-one", "studio-kaj"} {
		entries, err := s.db.History(t.Context(), db.HistoryFilter{Tenant: slug, Limit: 1})
		if err != nil || len(entries) != 1 || entries[0].Actor != maria.Name || entries[0].Via != flags.ViaConsole {
			t.Errorf("the history of %s is %+v, %v; want maria, in the console", slug, entries, err)
		}
	}
	rd.page(importPath).contains(t, "Imported: 1 created")
	s.reader(jonas).page(importPath).lacks(t, "Imported:")

	// While changes are frozen, rows can be checked, and an import says why it is refused.
	if _, err := s.db.Freeze(t.Context(), jonas.By(), flags.NewFreeze{Reason: "launch", Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	rd.upload(lines, "t.jsonl", "", "check").contains(t, "The rows are right.")
	a = rd.upload(lines, "t.jsonl", "", "import")
	equal(t, "status of a frozen import", a.StatusCode, http.StatusLocked)
	a.contains(t, "by "+jonas.Name+": launch. Nothing was changed.")
}

// One import runs at a time, and the end of the server ends it without a trace.
func TestPagesImportStopped(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rd, other := s.reader(maria), s.reader(jonas)
	before := s.db.Current()
	release := s.hold()
	rd.upload("slug,name,plan\nnew-one,New One,business\n", "t.csv", "", "import", "HX-Request", "true", "HX-Request-Type", "partial").contains(t, "Writing", "0 of 1", `hx-trigger="every 1s"`)
	second := other.upload("slug,name,plan\nnew-two,New Two,business\n", "t.csv", "", "import")
	equal(t, "status of a second one", second.StatusCode, http.StatusConflict)
	second.contains(t, "maria@dezky.example imports tenants.", "Yours was not begun")
	s.server.EndStreams()
	s.server.Wait()
	release()
	rd.page(importPath+"/progress").contains(t, "The server was stopped before the end. Nothing was changed.")
	if s.db.Current() != before {
		t.Error("something was changed")
	}
}
