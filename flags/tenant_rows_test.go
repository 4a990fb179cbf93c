package flags_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/dezky/platform-api/flags"
)

// rowsOf lists rows as their line and the fields that they have.
func rowsOf(rows []flags.TenantRow) string {
	var out []string
	for _, row := range rows {
		p, fields := row.Tenant, map[string]any{}
		for name, value := range map[string]*string{"id": p.ID, "slug": p.Slug, "name": p.Name, "plan": p.Plan, "partnerSlug": p.PartnerSlug, "status": p.Status} {
			if value != nil {
				fields[name] = *value
			}
		}
		text := show(row.Line) + show(fields)
		if len(p.Problems) > 0 {
			text += show(p.Problems)
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestDecodeTenantLines(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	tests := []struct{ name, in, want string }{
		{"one", `{"slug":"a","name":"A","plan":"starter"}`, `1{"name":"A","plan":"starter","slug":"a"}`},
		{"all fields, null, a line end of Windows, empty lines", "\n{\"id\":\"1\",\"slug\":\"a\",\"name\":\"A\",\"plan\":\"x\",\"partnerSlug\":null,\"status\":\"s\"}\r\n \t\n\n{\"slug\":\"b\"}\n",
			`2{"id":"1","name":"A","partnerSlug":"","plan":"x","slug":"a","status":"s"} 5{"slug":"b"}`},
		{"bad values wait", `{"slug":null}`, `1{}[{"field":"slug","message":"must not be null"}]`},
		{"nothing", "", "malformed: the body is empty; a JSON object for each tenant is expected, one a line"},
		{"empty lines", "\n\n \n", "malformed: the body is empty; a JSON object for each tenant is expected, one a line"},
		{"not JSON", "{}\n{\"slug\"=1}\n", "malformed: line 2 is not JSON: invalid character '=' after object key at column 8"},
		{"two on a line", "{} {}", "malformed: line 1 is not JSON: invalid character '{' after top-level value at column 4"},
		{"an object on two lines", "{}\n{\n}", "malformed: line 2 is not JSON: unexpected end of JSON input at column 1"},
		{"not UTF-8", "{}\n{}\n{\"name\":\"\xff\"}", "malformed: line 3 is not UTF-8"},
		{"half a pair", `{"name":"\ud800"}`, "malformed: line 1: name contains U+FFFD or half of a surrogate pair"},
		{"no object", "{}\n[]", "malformed: line 2 must be an object, not an array"},
		{"null", "null", "malformed: line 1 must be an object, not null"},
		{"wrong type", "{}\n\n{\"plan\":1}", "malformed: line 3: plan must be a string, not a number"},
		{"unknown field", `{"colour":"red"}`, "malformed: line 1: colour is not a known field; the fields are id, name, partnerSlug, plan, slug, status"},
		{"given twice", `{"slug":"a","slug":"a"}`, "malformed: line 1: slug is given twice"},
		{"a long line", "{}\n{\"name\":\"" + long + "\"}\n{}", "malformed: line 2 is longer than 65536 bytes"},
	}
	for _, tt := range tests {
		rows, err := flags.DecodeTenantLines(strings.NewReader(tt.in))
		got := rowsOf(rows)
		if err != nil {
			got = outcome(err)
		}
		if got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestDecodeTenantTable(t *testing.T) {
	const columns = "; the columns are id, name, partnerSlug, plan, slug, status"
	tests := []struct{ name, in, want string }{
		{"the least", "slug,name,plan\na,A,starter\n", `2{"name":"A","plan":"starter","slug":"a"}`},
		{"all columns in another order, a mark of bytes, quotes, an empty line, line ends of Windows",
			"\uFEFFstatus, id ,plan,name,partnerSlug,slug\r\nactive,1,starter,\"A, \"\"B\"\"\",p,a\r\n\r\n,,starter,B,,b\r\n",
			`2{"id":"1","name":"A, \"B\"","partnerSlug":"p","plan":"starter","slug":"a","status":"active"} 4{"name":"B","plan":"starter","slug":"b"}`},
		{"a cell on two lines", "slug,name,plan\na,\"A\nB\",x\nb,B,x\n", `2{"name":"A\nB","plan":"x","slug":"a"} 4{"name":"B","plan":"x","slug":"b"}`},
		{"only the columns", "slug,name,plan", ""},
		{"nothing", "", "malformed: the body is empty; a line that names the columns is expected"},
		{"an unknown column", "slug,name,colour,plan\n", "malformed: line 1: colour is not a known column" + columns},
		{"semicolons", "slug;name;plan\n", "malformed: line 1: slug;name;plan is not a known column" + columns},
		{"a column without a name", "slug,,plan\n", `malformed: line 1: "" is not a known column` + columns},
		{"a column that is not UTF-8", "slug,\xff\n", "malformed: line 1: \uFFFD is not a known column" + columns},
		{"a column twice", "slug,name,slug\n", "malformed: line 1: slug is given twice"},
		{"columns missing", "id,status\n1,active\n", "invalid: line 1: name is required; there is no such column; line 1: plan is required; there is no such column; line 1: slug is required; there is no such column"},
		{"a cell too few", "slug,name,plan\na,A,starter\nb,B\n", "malformed: line 3 has 2 cells; the first line has 3"},
		{"a cell too many", "slug,name,plan\na,A,starter,x\n", "malformed: line 2 has 4 cells; the first line has 3"},
		{"a quote that does not end", "slug,name,plan\na,\"A,starter\n", `malformed: line 2 is not CSV: extraneous or missing " in quoted-field`},
		{"a quote in a cell", "slug,name,plan\na,A\"B,starter\n", `malformed: line 2 is not CSV: bare " in non-quoted-field`},
		{"not UTF-8", "slug,name,plan\na,A,x\nb,\xff,x\n", "malformed: line 3: name is not UTF-8"},
	}
	for _, tt := range tests {
		rows, err := flags.DecodeTenantTable(strings.NewReader(tt.in))
		got := rowsOf(rows)
		if err != nil {
			got = outcome(err)
		}
		if got != tt.want {
			t.Errorf("%s: %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestTenantRowsAreBounded(t *testing.T) {
	decoders := []struct {
		name, head, row string
		decode          func(io.Reader) ([]flags.TenantRow, error)
	}{
		{"lines", "", "{}\n", flags.DecodeTenantLines},
		{"table", "slug,name,plan\n", "a,A,x\n", flags.DecodeTenantTable},
	}
	for _, d := range decoders {
		full := d.head + strings.Repeat(d.row, flags.MaxTenantRows)
		if rows, err := d.decode(strings.NewReader(full)); len(rows) != 100_000 || err != nil {
			t.Errorf("%s: 100,000 rows = %d rows, %v, want all of them", d.name, len(rows), err)
		}
		if _, err := d.decode(strings.NewReader(full + d.row)); !errors.Is(err, flags.ErrTooManyRows) {
			t.Errorf("%s: one more = %v, want %v", d.name, err, flags.ErrTooManyRows)
		}
		broken := io.MultiReader(strings.NewReader(d.head+d.row), iotest.ErrReader(io.ErrUnexpectedEOF))
		if _, err := d.decode(broken); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: a body that breaks off = %v, want %v", d.name, err, io.ErrUnexpectedEOF)
		}
		// However the bytes arrive, the rows are the same.
		few := d.head + strings.Repeat(d.row, 3)
		at, _ := d.decode(strings.NewReader(few))
		slow, err := d.decode(iotest.OneByteReader(strings.NewReader(few)))
		if err != nil || rowsOf(slow) != rowsOf(at) || len(slow) != 3 {
			t.Errorf("%s: byte by byte = %s, %v, want %s", d.name, rowsOf(slow), err, rowsOf(at))
		}
	}
}

// The rows of a table do not share memory that the reading of the next one writes over.
func TestTableRowsStay(t *testing.T) {
	rows, err := flags.DecodeTenantTable(strings.NewReader("slug,name,plan\na,First,x\nb,Next one,y\n"))
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v, want 2", len(rows), err)
	}
	got := []string{*rows[0].Tenant.Slug, *rows[0].Tenant.Name, *rows[0].Tenant.Plan, *rows[1].Tenant.Slug, *rows[1].Tenant.Name, *rows[1].Tenant.Plan}
	if want := []string{"a", "First", "x", "b", "Next one", "y"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
