package handlers_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
)

// mistake makes twelve flags that are off, of which one is targeted, and turns all on by one import. It returns the
// last moment before, as the flags were, and the moment of the import with its entry.
func (s *site) mistake() (before time.Time, was *flags.Snapshot, entry flags.Entry) {
	s.t.Helper()
	d := flags.Document{}
	for i := range 12 {
		key := fmt.Sprintf("bulk_%02d", i)
		if i == 0 {
			s.make(key, flags.Targeted, 0, map[flags.Axis][]string{flags.AxisPlans: {"enterprise"}})
		} else {
			s.make(key, flags.Off, 0, nil)
		}
		d.Flags = append(d.Flags, flags.NewFlag{Key: key, Patch: flags.Patch{State: new(flags.On)}})
	}
	was, before = s.db.Current(), s.newest().At
	for !time.Now().Truncate(time.Millisecond).After(before) {
	}
	if _, err := s.db.Import(s.t.Context(), db.By{Actor: "system:import", Via: flags.ViaImport}, d, db.Import{}); err != nil {
		s.t.Fatal(err)
	}
	return before, was, s.newest()
}

// newest is the last entry of the log.
func (s *site) newest() flags.Entry {
	s.t.Helper()
	log, err := s.db.History(s.t.Context(), db.HistoryFilter{Limit: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	return log[0]
}

// differ are the keys of the flags that are not as in a snapshot.
func (s *site) differ(was *flags.Snapshot) string {
	var keys []string
	for _, d := range s.db.Current().Comebacks(was.Flags()) {
		keys = append(keys, d.Key)
	}
	return strings.Join(keys, " ")
}

// asOf are all answers at a time.
func (s *site) asOf(at time.Time) string {
	s.t.Helper()
	var b strings.Builder
	for _, t := range s.db.Current().Tenants() {
		p, err := s.db.AsOf(s.t.Context(), at, t.Slug)
		if err != nil {
			s.t.Fatal(err)
		}
		b.WriteString(answersOf(p.Snapshot, p.Tenant(t.Slug)))
	}
	return b.String()
}

func answersOf(s *flags.Snapshot, t *flags.Tenant) string {
	var b strings.Builder
	for _, f := range s.Flags() {
		for _, env := range s.Environments() {
			fmt.Fprintln(&b, t.Slug, f.Key, env, f.Evaluate(t, env))
		}
	}
	return b.String()
}

// An import turns twelve flags on. It is found in the log, taken back whole from there, and both moments still
// evaluate as they were; that is undone in one press, and asked about where many gain.
func TestConsoleBringBack(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{})
	before, was, entry := s.mistake()
	wrong := s.db.Current()
	var had, has strings.Builder
	for _, tenant := range wrong.Tenants() {
		had.WriteString(answersOf(was, tenant))
		has.WriteString(answersOf(wrong, tenant))
	}
	lost, _ := wrong.ImpactOfAll(wrong.Comebacks(was.Flags()))
	label := fmt.Sprintf("Bring back 12 flags · %d tenants lose", lost[0].Lost)

	p.open(fmt.Sprint("/operator/audit/", entry.ID))
	equal(t, "the undo of the whole", strings.Contains(p.textOf("main"), "Undo all 12 flags of this change"), true)
	p.loads(func() { p.clickText("main", "Bring back to before this") })
	equal(t, "rows", len(p.texts("#back-form li")), 12)
	equal(t, "the button", p.textOf("#back-go"), label)
	equal(t, "the first", strings.Contains(p.textOf("#back-form li"), "bulk_00") && strings.Contains(p.textOf("#back-form li"), "targeted"), true)
	p.auditBoth("bring back")

	p.click(`[name=key][value=bulk_03]`)
	p.waitText("#back-go", "Bring back 11 flags")
	equal(t, "counted", strings.HasPrefix(p.textOf("#tally"), "11 of 12 flags"), true)
	p.clickText("#back-form", "Tick none")
	p.wait(`document.querySelector('#back-go').textContent === 'Bring back'`)
	p.clickText("#back-form", "Tick all")
	p.waitText("#back-go", label)
	equal(t, "the focus", p.focusText(), "Tick all")

	p.click("#back-go")
	p.waitText("#toasts", "12 flags came back.")
	p.waitFocus("#back-says")
	equal(t, "said", strings.Contains(p.textOf("#toasts"), fmt.Sprintf("%d tenants lose", lost[0].Lost)), true)
	equal(t, "flags that are not as before", s.differ(was), "")
	note := "restored from " + entry.At.Add(-time.Millisecond).Format(time.RFC3339Nano)
	equal(t, "the log says", s.newest().Note, note)
	equal(t, "answers before the mistake", s.asOf(before), had.String())
	equal(t, "answers after it", s.asOf(entry.At), has.String())
	p.auditBoth("brought back")

	p.loads(func() { p.press("u") })
	equal(t, "flags that are not as by the mistake", s.differ(wrong), "")
	equal(t, "where", strings.Contains(p.textOf("#back-says"), "12 flags changed together by maria@dezky.example: undo of revision"), true)

	// Somebody changes one of them meanwhile: nothing comes back, and the page says which it was.
	p.open("/operator/restore?at=" + url.QueryEscape(before.Format(time.RFC3339Nano)))
	s.setPct("bulk_05", 30)
	p.expectStatus(409)
	p.click("#back-go")
	p.waitFocus("#back-changed")
	equal(t, "why", strings.Contains(p.textOf("#back-changed"), "Flags were changed meanwhile; flags: bulk_05."), true)
	equal(t, "still on", s.flag("bulk_00").State, flags.On)
	p.audit("changed meanwhile", false)
	p.click("#back-go")
	p.waitText("#toasts", "12 flags came back.")
	equal(t, "flags that are not as before", s.differ(was), "")

	// The other way many gain: that is asked about first.
	p.open("/operator/restore?at=" + url.QueryEscape(entry.At.Format(time.RFC3339Nano)))
	p.expectStatus(428)
	p.click("#back-go")
	p.wait(`document.querySelector('#confirm-back')?.open`)
	p.audit("the question", false)
	equal(t, "nothing yet", s.flag("bulk_01").State, flags.Off)
	p.clickText("#confirm-back", "Bring back 12 flags")
	p.waitText("#toasts", "12 flags came back.")
	equal(t, "on again", s.differ(wrong), "")
}

// focusText is the text of what has the focus.
func (p *tab) focusText() string {
	return js[string](p, `document.activeElement.textContent.trim()`)
}

// Without JavaScript it is plain forms; what can't come back says why, what was made since is not ticked.
func TestConsoleBringBackWithoutScript(t *testing.T) {
	t.Parallel()
	s, p := console(t, look{noScript: true})
	before, was, _ := s.mistake()
	s.make("later", flags.Off, 0, nil)
	p.open("/operator/restore")
	p.expectStatus(422)
	p.open("/operator/restore?at=2001-01-01T00:00:00")
	equal(t, "too early", strings.HasPrefix(p.textOf("#rs-e"), "At must not be before "), true)
	p.open("/operator/restore?at=" + url.QueryEscape(before.Format("2006-01-02T15:04:05.000")))
	equal(t, "made since", strings.Contains(p.textOf("#back-form"), "was made since, and would be deleted") && !p.has("[value=later]:checked"), true)
	p.click(`[name=key][value=bulk_07]`)
	p.loads(func() { p.clickText("main", "Count again") })
	equal(t, "counted", strings.HasPrefix(p.textOf("#back-go"), "Bring back 11 flags"), true)
	p.loads(func() { p.click("#back-go") })
	equal(t, "said", strings.Contains(p.textOf("#back-says"), "11 flags changed together by maria@dezky.example: restored from"), true)
	equal(t, "not as before", s.differ(was), "bulk_07 later")
	p.loads(func() { p.clickText("#back", "Undo all") })
	equal(t, "on again", s.flag("bulk_01").State, flags.On)
}
