package handlers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

const (
	uploadMost  = 4 * importBody             // bytes that are read, and past importBody thrown away: a browser that still sends reads no answer
	pasteKept   = 64 << 10                   // bytes of pasted rows that a page without JavaScript gives back
	importSoon  = 300 * time.Millisecond     // for how long an answer waits for an import, before it shows its progress
	importAwait = importDone - 5*time.Second // the same without JavaScript, where a page shows no progress by itself
)

// tenantImports are the imports of tenants in the console, of this process: one at a time, and the last one of
// each person.
type tenantImports struct {
	mu      sync.Mutex
	running *tenantJob
	last    map[person]*tenantJob
}

// person is who somebody is, however their name is written now.
type person struct{ issuer, subject, name string }

func personOf(by db.By) person {
	if by.Subject != "" {
		return person{by.Issuer, by.Subject, ""}
	}
	return person{name: by.Actor}
}

// tenantJob is one import of tenants.
type tenantJob struct {
	by    db.By
	id    string // of its request, which the log knows
	stage atomic.Pointer[importStage]
	ended chan struct{} // closed when what follows is known

	check bool
	done  db.ImportedTenants
	err   error
	at    time.Time
}

// importStage is how far the writing is; until there is one, rows are read.
type importStage struct {
	check       bool
	done, total int
}

// begin makes a job the one that runs, or returns the one that runs already.
func (im *tenantImports) begin(j *tenantJob) (other *tenantJob) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.running == nil {
		im.running = j
		return nil
	}
	return im.running
}

func (im *tenantImports) end(j *tenantJob) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.running = nil
	if im.last == nil {
		im.last = map[person]*tenantJob{}
	}
	im.last[personOf(j.by)] = j
	close(j.ended)
}

// seen is what a person is shown: the job that runs, whosever it is, else their own last one, or nil.
func (im *tenantImports) seen(by db.By) *tenantJob {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.running != nil {
		return im.running
	}
	return im.last[personOf(by)]
}

// importPage is the form, and what runs or ran.
func (a *app) importPage(w http.ResponseWriter, r *http.Request, v visit) error {
	return a.showImport(w, v, http.StatusOK, a.importState(a.imports.seen(v.principal.By()), v), "")
}

func (a *app) showImport(w http.ResponseWriter, v visit, status int, state templates.ImportState, pasted string) error {
	return a.html(w, status, templates.ImportPage{Chrome: a.chrome(v, "tenants", "Import tenants"), State: state, Pasted: pasted})
}

// importProgress is the part of the page that says how far the import is, and at last what came of it.
func (a *app) importProgress(w http.ResponseWriter, r *http.Request, v visit) error {
	w.(*recorder).quiet = true
	return a.html(w, http.StatusOK, a.importState(a.imports.seen(v.principal.By()), v))
}

// startImport takes the rows of the form in, or checks them. Once they are read the import needs the browser no
// more. One at a time runs here.
func (a *app) startImport(w http.ResponseWriter, r *http.Request, v visit) error {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(importRead)); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	j := &tenantJob{by: v.principal.By(), id: w.(*recorder).id, ended: make(chan struct{})}
	other := a.imports.begin(j)
	var in upload
	if other == nil {
		in, j.err = readUpload(r)
	}
	io.Copy(io.Discard, r.Body)
	if err := control.SetWriteDeadline(time.Now().Add(importDone)); err != nil && other == nil && j.err == nil {
		j.err = fmt.Errorf("import: %w", err)
	}
	switch {
	case other != nil:
		state := a.importState(other, v)
		state.Refused = true
		return a.answerImport(w, r, v, http.StatusConflict, state, "")
	case j.err != nil:
		a.endImport(j)
	default:
		j.check = in.check
		a.server.background.Go(func() { a.runImport(j, in.rows) })
	}
	patience := importAwait
	if fromHtmx(r) {
		patience = importSoon
	}
	select {
	case <-j.ended:
		return a.answerImport(w, r, v, importStatus(j.err), a.importState(j, v), in.pasted)
	case <-time.After(patience):
		return a.answerImport(w, r, v, http.StatusOK, a.importState(j, v), in.pasted)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

func (a *app) answerImport(w http.ResponseWriter, r *http.Request, v visit, status int, state templates.ImportState, pasted string) error {
	if !fromHtmx(r) {
		return a.showImport(w, v, status, state, pasted)
	}
	if status >= http.StatusInternalServerError { // of which htmx would show nothing; the words say it
		status = http.StatusOK
	}
	state.Focus = true
	return a.html(w, status, state)
}

// runImport writes the rows. The end of the server ends it, and then nothing is changed.
func (a *app) runImport(j *tenantJob, rows []flags.TenantRow) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-a.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	note := func(done, total int) { j.stage.Store(&importStage{j.check, done, total}) }
	note(0, len(rows))
	j.done, j.err = a.db.ImportTenants(ctx, j.by, rows, db.TenantImport{DryRun: j.check, Progress: note, Interruptible: true})
	a.endImport(j)
}

func (a *app) endImport(j *tenantJob) {
	j.at = a.now()
	if _, broken := db.Broken(j.err); broken || importStatus(j.err) == http.StatusInternalServerError {
		a.server.opts.Log.Error("import failed", "id", j.id, "error", j.err.Error())
	}
	a.imports.end(j)
}

// upload is what the form of an import says.
type upload struct {
	rows   []flags.TenantRow
	check  bool
	pasted string // the pasted rows, where they are few
}

// readUpload reads the form as it comes: the rows of a file go through without being kept.
func readUpload(r *http.Request) (upload, error) {
	u := upload{check: true}
	parts, err := r.MultipartReader()
	if err != nil {
		return u, &refusal{http.StatusUnsupportedMediaType, "unsupported-media-type", "the form must be sent as multipart/form-data"}
	}
	given := false
	for {
		part, err := parts.NextPart()
		switch {
		case errors.Is(err, io.EOF) && !given:
			return u, &refusal{http.StatusUnprocessableEntity, "invalid", "there are no rows; choose a file or paste some"}
		case errors.Is(err, io.EOF):
			return u, nil
		case err != nil:
			return u, errBody
		}
		switch part.FormName() {
		case "do":
			does, err := io.ReadAll(io.LimitReader(part, 16))
			if err != nil {
				return u, errBody
			}
			u.check = string(does) != "import"
		case "file", "rows":
			in := bufio.NewReader(http.MaxBytesReader(nil, part, importBody))
			if _, err := in.Peek(1); err != nil { // none was chosen, nothing was pasted
				continue
			}
			if given {
				return u, &refusal{http.StatusUnprocessableEntity, "invalid", "choose a file or paste rows, not both"}
			}
			given = true
			if u.rows, u.pasted, err = readPart(part, in); err != nil {
				return u, err
			}
		}
	}
}

// readPart reads rows: by the file's name, else by how they begin.
func readPart(part *multipart.Part, in *bufio.Reader) (rows []flags.TenantRow, pasted string, err error) {
	read := flags.DecodeTenantTable
	switch path.Ext(strings.ToLower(part.FileName())) {
	case ".ndjson", ".jsonl":
		read = flags.DecodeTenantLines
	case ".csv":
	default:
		start, _ := in.Peek(512) // what is wrong with it is said when it is read
		if bytes.HasPrefix(bytes.TrimSpace(start), []byte("{")) {
			read = flags.DecodeTenantLines
		}
	}
	kept := &beginning{}
	var from io.Reader = in
	if part.FileName() == "" {
		from = io.TeeReader(in, kept)
	}
	rows, err = read(from)
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, "", &refusal{http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("the rows have more than %d MiB, which is the most at once", importBody>>20)}
	}
	if err != nil {
		io.Copy(io.Discard, from) // the rest of what is given back
	}
	return rows, kept.String(), rowsError(err)
}

// beginning keeps what is written to it, unless that is more than pasteKept.
type beginning struct{ bytes.Buffer }

func (b *beginning) Write(p []byte) (int, error) {
	if b.Len() <= pasteKept {
		b.Buffer.Write(p[:min(len(p), pasteKept+1-b.Len())])
	}
	return len(p), nil
}

func (b *beginning) String() string {
	if b.Len() > pasteKept {
		return ""
	}
	return b.Buffer.String()
}

// importStatus is what came of an import as a status.
func importStatus(err error) int {
	var malformed *flags.Malformed
	var invalid *flags.Invalid
	var refused *refusal
	var frozen *flags.Frozen
	var alone *db.NotReplicated
	_, broken := db.Broken(err)
	switch {
	case err == nil:
		return http.StatusOK
	case errors.As(err, &malformed):
		return http.StatusBadRequest
	case errors.As(err, &invalid):
		return http.StatusUnprocessableEntity
	case errors.As(err, &refused):
		return refused.status
	case errors.As(err, &frozen):
		return http.StatusLocked
	case errors.As(err, &alone), errors.Is(err, context.Canceled), broken:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// importState is a job in words for a person; nil is none.
func (a *app) importState(j *tenantJob, v visit) templates.ImportState {
	if j == nil {
		return templates.ImportState{}
	}
	select {
	case <-j.ended:
	default:
		s := templates.ImportState{Running: true}
		if personOf(j.by) != personOf(v.principal.By()) {
			s.Who = j.by.Actor
		}
		if stage := j.stage.Load(); stage != nil {
			s.Check, s.Done, s.Total = stage.check, stage.done, stage.total
		}
		return s
	}
	out := templates.ImportResult{Check: j.check, Created: j.done.Created, Changed: j.done.Changed, Unchanged: j.done.Unchanged, At: a.time(j.at)}
	names := a.db.Current().Environments()
	for _, f := range j.done.Flips {
		flip := templates.ImportFlip{Key: f.Flag.Key}
		for i, e := range f.Impact {
			if e.Gained+e.Lost > 0 {
				flip.Envs = append(flip.Envs, templates.ReachChange{Env: names[i], Gained: e.Gained, Lost: e.Lost})
			}
		}
		out.Flips = append(out.Flips, flip)
	}
	var malformed *flags.Malformed
	var invalid *flags.Invalid
	var refused *refusal
	var frozen *flags.Frozen
	var alone *db.NotReplicated
	reason, broken := db.Broken(j.err)
	switch {
	case j.err == nil:
	case errors.As(j.err, &alone):
		out.Warning = sentence(alone.Error())
	case errors.As(j.err, &malformed):
		out.Mistakes = []templates.Mistake{mistakeAt(malformed.Where, malformed.Message)}
	case errors.As(j.err, &invalid):
		for _, e := range invalid.Errors {
			out.Mistakes = append(out.Mistakes, mistakeAt(e.Field, e.Message))
		}
		out.More = invalid.More
	case errors.As(j.err, &refused):
		out.Failed = sentence(refused.detail)
	case errors.As(j.err, &frozen):
		out.Failed = sentence(strings.TrimRight(frozen.Error(), "."))
	case errors.Is(j.err, context.Canceled):
		out.Failed = "The server was stopped before the end."
	case broken:
		out.Failed = sentence(unusable(reason))
	default:
		out.Failed = "Something went wrong here. The log knows it as " + j.id + "."
	}
	return templates.ImportState{Result: &out}
}

// mistakeAt splits "line 17: plan" into the line and the field.
func mistakeAt(where, message string) templates.Mistake {
	line, field, _ := strings.Cut(where, ": ")
	if line == "" {
		line = "the rows"
	}
	return templates.Mistake{Line: strings.ToUpper(line[:1]) + line[1:], Field: field, Message: message}
}
