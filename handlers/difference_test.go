package handlers

import (
	"encoding/csv"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A change of several kinds is told in JSON, page by page, and as CSV, under each filter.
func TestHistoryDifference(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	begin := s.lastEntry(t)
	for _, x := range []struct{ line, body string }{
		{"PATCH /flags/calendar", `{"state":"off"}`}, // was on
		{"POST /flags", `{"key":"dark_mode","state":"targeted","scope":{"environments":["staging"],"plans":["enterprise"]}}`},
		{"DELETE /tenants/umbrella", ""},
		{"POST /tenants", `{"id":"t9","slug":"umbrella","name":"=Umbrella","plan":"enterprise"}`},
	} {
		s.send(t, x.line, x.body)
	}
	end := s.lastEntry(t)
	ask := func(more ...string) string {
		q := url.Values{"from": {begin.Format(time.RFC3339Nano)}, "to": {end.Format(time.RFC3339Nano)}}
		for i := 0; i < len(more); i += 2 {
			q.Set(more[i], more[i+1])
		}
		return "GET /history/difference?" + q.Encode()
	}
	lines := func(d differenceAnswer) (out []string) {
		for _, x := range d.Turns {
			out = append(out, fmt.Sprintf("%s %s %s %s %s %t %t", x.Flag, x.Tenant, x.TenantID, x.Change, x.Environments, x.New, x.Removed))
		}
		return out
	}
	var all differenceAnswer
	for next := ask("limit", "2"); next != ""; {
		a := s.want(t, 200, next, "")
		d := decode[differenceAnswer](t, a)
		if all.Turns == nil {
			all = d
		} else {
			all.Turns = append(all.Turns, d.Turns...)
		}
		next = ""
		if link := a.header.Get("Link"); link != "" {
			next = "GET " + strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
		}
	}
	calendar := "calendar %s lost [production staging development] false %t"
	want := []string{fmt.Sprintf(calendar, "acme t1", false), fmt.Sprintf(calendar, "globex t2", false), fmt.Sprintf(calendar, "initech t3", false),
		fmt.Sprintf(calendar, "umbrella t4", true), "dark_mode initech t3 gained [staging] false false", "dark_mode umbrella t9 gained [staging] true false"}
	got := lines(all)
	rest := []string{}
	for _, line := range got { // of search, whose rollout takes some tenants
		if !strings.HasPrefix(line, "search ") {
			rest = append(rest, line)
		}
	}
	if show(rest) != show(want) || all.Gained+all.Lost != len(got) {
		t.Errorf("the turns are\n%s\nwant\n%s\nand as many as counted: %d", strings.Join(got, "\n"), strings.Join(want, "\n"), all.Gained+all.Lost)
	}
	if got, want := show(all.Flags[0]), `{"key":"calendar","gained":0,"lost":4,"environments":{"development":{"gained":0,"lost":4},"production":{"gained":0,"lost":4},"staging":{"gained":0,"lost":4}}}`; got != want {
		t.Errorf("the counts of calendar are %s, want %s", got, want)
	}
	for _, tt := range []struct {
		name, value string
		want        int
	}{{"flag", "calendar", 4}, {"tenant", "acme", 1}, {"partner", "fjordit", 2}, {"plan", "starter", 1}} {
		filter := []string{tt.name, tt.value}
		if tt.name != "flag" {
			filter = append(filter, "env", "staging")
		}
		d := decode[differenceAnswer](t, s.want(t, 200, ask(filter...), ""))
		n := 0
		for _, line := range lines(d) {
			if !strings.HasPrefix(line, "search ") {
				n++
			}
		}
		if n != tt.want {
			t.Errorf("%s=%s: %d turns, want %d: %s", tt.name, tt.value, n, tt.want, show(d))
		}
	}
	if d := decode[differenceAnswer](t, s.want(t, 200, ask("env", "production", "change", "gained", "flag", "dark_mode"), "")); len(d.Turns) != 0 || len(d.Environments) != 1 {
		t.Errorf("gained in production: %s", show(d))
	}

	// RFC 4180: a head, rows that end in CRLF; no cell that a spreadsheet takes for a formula.
	for _, ask := range []struct{ line, header string }{{ask("format", "csv"), "Accept: */*"}, {ask(), "Accept: text/csv"}} {
		a := s.want(t, 200, ask.line, "", ask.header)
		rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
		if err != nil || len(rows) != len(got)+1 || strings.Count(a.body, "\r\n") != len(rows) || a.header.Get("Content-Type") != "text/csv; charset=utf-8" {
			t.Fatalf("%v, %d rows, want a head and %d:\n%s", err, len(rows), len(got), a.body)
		}
		for i, x := range all.Turns {
			row := rows[i+1]
			if row[0] != x.Flag || row[1] != x.Tenant || row[2] != x.TenantID || row[6] != string(x.Change) || row[7] != strings.Join(x.Environments, " ") {
				t.Errorf("row %q, want %s", row, show(x))
			}
			if is := map[bool]string{x.New: "new", x.Removed: "removed"}[true]; row[8] != is {
				t.Errorf("row %q says that the tenant is %q, want %q", row, row[8], is)
			}
			if x.TenantID == "t9" && row[3] != "'=Umbrella" {
				t.Errorf("the name is %q", row[3])
			}
		}
	}
}

func TestHistoryDifferenceRefuses(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	at := s.lastEntry(t)
	for _, tt := range []struct {
		query  url.Values
		fields []string
	}{
		{url.Values{}, []string{"from"}},
		{url.Values{"from": {"yesterday"}, "to": {"soon"}}, []string{"from", "to"}},
		{url.Values{"from": {at.AddDate(-1, 0, 0).Format(time.RFC3339)}, "to": {at.AddDate(1, 0, 0).Format(time.RFC3339)}}, []string{"from", "to"}},
		{url.Values{"from": {"now"}, "to": {at.Format(time.RFC3339Nano)}}, []string{"from"}},
		{url.Values{"from": {"now"}, "env": {"moon"}, "plan": {"gold"}, "change": {"kept"}}, []string{"plan", "change", "env"}},
		{url.Values{"from": {"now"}, "limit": {"1001"}, "after": {"calendar"}}, []string{"limit", "after"}},
		{url.Values{"from": {"now"}, "format": {"xml"}}, []string{"format"}},
		{url.Values{"from": {"now"}, "format": {"csv"}, "limit": {"5"}}, []string{"format"}},
	} {
		if got := errorFields(t, s.want(t, 422, "GET /history/difference?"+tt.query.Encode(), "")); show(got) != show(tt.fields) {
			t.Errorf("%s: the bad fields are %s, want %s", tt.query.Encode(), got, tt.fields)
		}
	}
}
