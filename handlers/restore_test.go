package handlers

import (
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/flags"
)

func TestRestoreToATime(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.registry(t)
	then := decode[[]flags.Entry](t, s.want(t, 200, "GET /history?limit=1", ""))[0].At
	s.moveClock(time.Hour)
	s.want(t, 200, "PATCH /flags/search", `{"state":"on"}`)
	s.want(t, 200, "PATCH /flags/mail_rules", `{"scope":{"tenantSlugs":[]}}`)
	s.want(t, 204, "DELETE /flags/calendar", "")
	s.want(t, 201, "POST /flags", `{"key":"made"}`)
	s.want(t, 204, "DELETE /tenants/globex", "")
	body := func(rest string) string { return `{"at":"` + then.Format(time.RFC3339Nano) + `"` + rest + `}` }

	for _, x := range []struct{ body, want string }{
		{`{}`, "at is required"},
		{`{"at":null,"keys":null}`, "at must not be null; keys must not be null"},
		{`{"at":"2026-01-31 14:02","keys":[]}`, `keys must name at least one flag; leave it out for all that existed then; at must be a time by RFC 3339, such as "2026-01-31T14:02:00Z"`},
		{body(`,"keys":["search","mail_rules","nothing","search"]`), `keys[2] is "nothing": there is no such flag, and there was none then; keys[3] is "search", as keys[0] is; ` +
			`keys[1] the flag "mail_rules" can't come back: scope.tenantSlugs[0] must be a known tenant, not "globex"`},
		{body(""), `keys the flag "mail_rules" can't come back: scope.tenantSlugs[0] must be a known tenant, not "globex"`},
	} {
		got := decode[problem](t, s.want(t, 422, "POST /restore", x.body))
		if told := (&flags.Invalid{Errors: got.Errors}).Error(); told != x.want {
			t.Errorf("%s\n%s\nwant\n%s", x.body, told, x.want)
		}
	}
	for _, x := range []struct{ body, want string }{
		{`{"at":1}`, "at must be a string, not a number"},
		{`{"at":"2026-01-31T14:02:00Z","dryRun":"yes"}`, "dryRun must be a boolean, not a string"},
		{`{"at":"2026-01-31T14:02:00Z","keys":[1]}`, "keys[0] must be a string, not a number"},
	} {
		if got := decode[problem](t, s.want(t, 400, "POST /restore", x.body)).Detail; got != x.want {
			t.Errorf("%s: %s, want %s", x.body, got, x.want)
		}
	}
	s.want(t, 403, "POST /restore", body(""), s.as("read"))

	trial := decode[broughtBack](t, s.want(t, 200, "POST /restore", body(`,"dryRun":true`)))
	if len(trial.Restored) != 2 || len(trial.Refused) != 1 || trial.Refused[0].Key != "mail_rules" || show(trial.Left) != `["made"]` || !trial.DryRun {
		t.Errorf("a trial: %s", show(trial))
	}
	s.want(t, 404, "GET /flags/calendar", "")
	got := decode[broughtBack](t, s.want(t, 200, "POST /restore", body(`,"keys":["search","calendar"],"dryRun":false`)))
	if !got.At.Equal(then) || show(got.Restored) != show(trial.Restored) || show(got.Left) != `["made"]` || show(got.Unchanged) != "[]" || got.DryRun {
		t.Errorf("brought back: %s\nas tried: %s", show(got), show(trial))
	}
	calendar := got.Restored[0]
	if calendar.Key != "calendar" || calendar.Action != flags.Restored || calendar.Version != 3 || calendar.Impact["production"].Gained != 3 {
		t.Errorf("calendar: %s", show(calendar))
	}
	if again := decode[broughtBack](t, s.want(t, 200, "POST /api/restore", body(`,"keys":["search"]`))); len(again.Restored) != 0 || show(again.Unchanged) != `["search"]` {
		t.Errorf("once more: %s", show(again))
	}
	entry := decode[[]flags.Entry](t, s.want(t, 200, "GET /history?limit=1", ""))[0]
	if !strings.HasPrefix(entry.Note, "restored from ") || entry.Name != "search" || entry.Actor != "token:operator" {
		t.Errorf("the log says %s", show(entry))
	}
}
