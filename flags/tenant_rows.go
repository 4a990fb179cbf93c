package flags

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of an import of tenants.
const (
	MaxTenantRows = 100_000
	maxTenantLine = 64 << 10 // bytes of a line of JSON
)

// ErrTooManyRows says that an import has more than MaxTenantRows tenants.
var ErrTooManyRows = fmt.Errorf("an import has at most %d tenants", MaxTenantRows)

// TenantRow is one tenant of an import: all that it is to be, and the line that says so.
type TenantRow struct {
	Line   int
	Tenant TenantPatch
}

// atLine names a line of an import, and a field in it where there is one.
func atLine(line int, field string) string {
	if field == "" {
		return fmt.Sprintf("line %d", line)
	}
	return fmt.Sprintf("line %d: %s", line, field)
}

// AtLine returns a copy whose fields stand on a line: "plan" becomes "line 17: plan".
func (e *Invalid) AtLine(line int) *Invalid {
	out := &Invalid{Errors: make([]FieldError, len(e.Errors)), More: e.More}
	for i, f := range e.Errors {
		out.Errors[i] = FieldError{atLine(line, f.Field), f.Message}
	}
	return out
}

// DecodeTenantLines reads one JSON object a line, as DecodeTenant reads one; empty lines do not count. The
// error is *Malformed naming the first line that can't be understood, ErrTooManyRows, or r's own.
func DecodeTenantLines(r io.Reader) ([]TenantRow, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxTenantLine)
	var rows []TenantRow
	number := 1
	for ; lines.Scan(); number++ {
		line := lines.Bytes()
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if len(rows) == MaxTenantRows {
			return nil, ErrTooManyRows
		}
		one := &reader{}
		v, err := parseBody(line, false, func(_, column int) string { return fmt.Sprintf("column %d", column) })
		row := TenantRow{Line: number}
		if err == nil {
			row.Tenant, err = one.tenant(v), one.err()
		}
		var malformed *Malformed
		if errors.As(err, &malformed) {
			return nil, &Malformed{atLine(number, malformed.Where), malformed.Message}
		}
		rows = append(rows, row)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, &Malformed{atLine(number, ""), fmt.Sprintf("is longer than %d bytes", maxTenantLine)}
	case err != nil:
		return nil, err
	case len(rows) == 0:
		return nil, &Malformed{"", "is empty; a JSON object for each tenant is expected, one a line"}
	}
	return rows, nil
}

// tenantColumns are the columns of a table of tenants, and whether a table must have them.
var tenantColumns = []struct {
	name     string
	required bool
	of       func(*TenantPatch) **string
}{
	{"id", false, func(p *TenantPatch) **string { return &p.ID }},
	{"name", true, func(p *TenantPatch) **string { return &p.Name }},
	{"partnerSlug", false, func(p *TenantPatch) **string { return &p.PartnerSlug }},
	{"plan", true, func(p *TenantPatch) **string { return &p.Plan }},
	{"slug", true, func(p *TenantPatch) **string { return &p.Slug }},
	{"status", false, func(p *TenantPatch) **string { return &p.Status }},
}

// DecodeTenantTable reads CSV (RFC 4180) whose first line names the columns: slug, name and plan, and perhaps
// partnerSlug, status and id, in any order. An empty cell is left out. The error is as DecodeTenantLines', or
// *Invalid for a column that is missing.
func DecodeTenantTable(r io.Reader) ([]TenantRow, error) {
	table := csv.NewReader(r)
	table.ReuseRecord = true
	header, err := table.Read()
	if errors.Is(err, io.EOF) {
		return nil, &Malformed{"", "is empty; a line that names the columns is expected"}
	}
	if err != nil {
		return nil, badTable(err)
	}
	header[0] = strings.TrimPrefix(header[0], "\uFEFF") // as spreadsheets begin a file
	columns, err := columnsOf(header)
	if err != nil {
		return nil, err
	}
	var rows []TenantRow
	for {
		record, err := table.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if errors.Is(err, csv.ErrFieldCount) {
			line, _ := table.FieldPos(0)
			return nil, &Malformed{atLine(line, ""), fmt.Sprintf("has %d cells; the first line has %d", len(record), len(columns))}
		}
		if err != nil {
			return nil, badTable(err)
		}
		if len(rows) == MaxTenantRows {
			return nil, ErrTooManyRows
		}
		line, _ := table.FieldPos(0)
		row := TenantRow{Line: line}
		for i, cell := range record {
			if !utf8.ValidString(cell) {
				return nil, &Malformed{atLine(line, tenantColumns[columns[i]].name), "is not UTF-8"}
			}
			if cell != "" {
				*tenantColumns[columns[i]].of(&row.Tenant) = &cell
			}
		}
		rows = append(rows, row)
	}
}

// columnsOf returns which of tenantColumns each cell of the first line names.
func columnsOf(header []string) ([]int, error) {
	var names []string
	known, has := map[string]int{}, map[string]bool{}
	for i, c := range tenantColumns {
		known[c.name] = i
		names = append(names, c.name)
	}
	columns := make([]int, len(header))
	for i, cell := range header {
		name := strings.TrimSpace(cell)
		n, ok := known[name]
		switch {
		case !ok:
			return nil, &Malformed{atLine(1, label(strings.ToValidUTF8(name, "\uFFFD"))), "is not a known column; the columns are " + strings.Join(names, ", ")}
		case has[name]:
			return nil, &Malformed{atLine(1, name), "is given twice"}
		}
		columns[i], has[name] = n, true
	}
	var bad Invalid
	for _, c := range tenantColumns {
		if c.required && !has[c.name] {
			bad.Errors = append(bad.Errors, FieldError{atLine(1, c.name), "is required; there is no such column"})
		}
	}
	if len(bad.Errors) > 0 {
		return nil, &bad
	}
	return columns, nil
}

// badTable says in words where a table is none; another error it passes on.
func badTable(err error) error {
	if syntax := (*csv.ParseError)(nil); errors.As(err, &syntax) {
		return &Malformed{atLine(syntax.Line, ""), fmt.Sprintf("is not CSV: %v", syntax.Err)}
	}
	return err
}
