package handlers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// What an import of tenants may be.
const (
	linesType  = "application/x-ndjson"
	tableType  = "text/csv"
	importBody = 64 << 20        // bytes
	importRead = 5 * time.Minute // for how long a client may send them
	importDone = time.Minute     // for how long the import and its answer may take then
)

// importedTenants is the answer to an import.
type importedTenants struct {
	Created   int          `json:"created"`
	Changed   int          `json:"changed"`
	Unchanged int          `json:"unchanged"`
	Flips     []flipCounts `json:"flips"`
	DryRun    bool         `json:"dryRun,omitempty"`
}

// flipCounts is how many tenants gained and lost a flag, in the environments in which any did.
type flipCounts struct {
	Key          string                 `json:"key"`
	Environments map[string]impactCount `json:"environments"`
}

// importTenants makes the registry's tenants what the rows say, all or none. With ?dryRun=1 it says what that
// would do.
func (a *app) importTenants(w http.ResponseWriter, r *http.Request, c call) error {
	rows, err := readRows(w, r)
	if err != nil {
		return err
	}
	o := db.TenantImport{DryRun: r.URL.Query().Get("dryRun") == "1"}
	done, err := a.db.ImportTenants(r.Context(), c.principal.By(), rows, o)
	if err != nil {
		return err
	}
	out := importedTenants{done.Created, done.Changed, done.Unchanged, []flipCounts{}, o.DryRun}
	for _, f := range done.Flips {
		counts := flipCounts{f.Flag.Key, map[string]impactCount{}}
		for i, name := range a.db.Current().Environments() {
			if e := f.Impact[i]; e.Gained+e.Lost > 0 {
				counts.Environments[name] = impactCount{e.Gained, e.Lost}
			}
		}
		out.Flips = append(out.Flips, counts)
	}
	return writeJSON(w, http.StatusOK, out)
}

// readRows reads the body of an import. It is read to its end also when it is refused, as far as it may be
// long: a client that is still sending would not read the answer.
func readRows(w http.ResponseWriter, r *http.Request) ([]flags.TenantRow, error) {
	media, err := mediaType(r, linesType, tableType)
	if err != nil {
		return nil, err
	}
	if r.ContentLength > importBody {
		return nil, tooLarge(importBody)
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(importRead)); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	body := http.MaxBytesReader(w, r.Body, importBody)
	read := flags.DecodeTenantLines
	if media == tableType {
		read = flags.DecodeTenantTable
	}
	rows, err := read(body)
	if err != nil {
		io.Copy(io.Discard, body)
	}
	if err := control.SetWriteDeadline(time.Now().Add(importDone)); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return nil, tooLarge(importBody)
	}
	return rows, rowsError(err)
}

// rowsError is the answer to rows that could not be read.
func rowsError(err error) error {
	var malformed *flags.Malformed
	var invalid *flags.Invalid
	switch {
	case err == nil, errors.As(err, &malformed), errors.As(err, &invalid):
		return err
	case errors.Is(err, flags.ErrTooManyRows):
		return &refusal{http.StatusRequestEntityTooLarge, "too-large", err.Error()}
	}
	return errBody
}
