package handlers

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// listMost is how many flags the list shows at once.
const listMost = 1000

// filterOf reads the list's filter out of an address. Unknown values are ignored.
func (a *app) filterOf(q url.Values, v visit) templates.FlagFilter {
	f := templates.FlagFilter{Text: strings.TrimSpace(q.Get("q"))}
	if v.env != a.usual(v) { // what goes without saying is not in the address
		f.Env = v.env
	}
	if s := q.Get("state"); slices.Contains(flags.States, flags.State(s)) {
		f.State = s
	}
	for axis, to := range map[string]*string{"plan": &f.Plan, "partner": &f.Partner, "tenant": &f.Tenant} {
		if value := q.Get(axis); value != "" && v.snapshot.Known(map[string]flags.Axis{
			"plan": flags.AxisPlans, "partner": flags.AxisPartners, "tenant": flags.AxisTenants}[axis], value) {
			*to = value
		}
	}
	if s := q.Get("sort"); s == "key" || s == "reach" {
		f.Sort = s
	}
	f.Query = a.query(f, nil)
	return f
}

// query writes a filter as an address's query, with some of its values replaced.
func (a *app) query(f templates.FlagFilter, replace map[string]string) string {
	q := url.Values{}
	for name, value := range map[string]string{"q": f.Text, "state": f.State, "plan": f.Plan, "partner": f.Partner, "tenant": f.Tenant, "env": f.Env, "sort": f.Sort} {
		if other, replaced := replace[name]; replaced {
			value = other
		}
		if value != "" {
			q.Set(name, value)
		}
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// list is the flags that the filter lets through.
func (a *app) list(v visit, filter templates.FlagFilter, current string) templates.FlagList {
	s := v.snapshot
	out := templates.FlagList{Filter: filter, Total: len(s.Flags()), Operator: v.operator(), Env: v.env, Plans: flags.Plans, Counts: a.counts(v, filter)}
	var found []*flags.Flag
	text := strings.ToLower(filter.Text)
	for _, f := range s.Flags() {
		if filter.State != "" && string(f.State) != filter.State || !contains(text, f.Key, f.Description) ||
			!names(f, flags.AxisPlans, filter.Plan) || !names(f, flags.AxisPartners, filter.Partner) || !names(f, flags.AxisTenants, filter.Tenant) {
			continue
		}
		found = append(found, f)
	}
	env := slices.Index(s.Environments(), v.env)
	switch filter.Sort {
	case "key": // as they are
	case "reach":
		slices.SortStableFunc(found, func(x, y *flags.Flag) int { return cmp.Compare(a.reach.Of(s, y)[env], a.reach.Of(s, x)[env]) })
	default:
		slices.SortStableFunc(found, func(x, y *flags.Flag) int { return y.UpdatedAt.Compare(x.UpdatedAt) })
	}
	out.Matches = len(found)
	for _, f := range found[:min(len(found), listMost)] {
		row := a.row(s, f, env)
		row.Query, row.Current = filter.Query, f.Key == current
		out.Rows = append(out.Rows, row)
	}
	for _, facet := range []struct{ name, value string }{{"partner", filter.Partner}, {"tenant", filter.Tenant}} {
		if facet.value != "" {
			out.Facets = append(out.Facets, templates.Facet{Name: facet.name, Value: facet.value,
				Without: "/operator/flags" + a.query(filter, map[string]string{facet.name: ""})})
		}
	}
	return out
}

// names tells whether a flag's scope names the value on the axis; "" asks nothing.
func names(f *flags.Flag, axis flags.Axis, value string) bool {
	if value == "" {
		return true
	}
	_, found := slices.BinarySearch(f.Scope.Axis(axis), value)
	return found
}

func (a *app) counts(v visit, filter templates.FlagFilter) templates.StateCounts {
	c := templates.StateCounts{Links: map[string]string{}, Current: filter.State}
	for _, state := range []string{"", "on", "targeted", "rollout", "off"} {
		c.Links[state] = "/operator/flags" + a.query(filter, map[string]string{"state": state})
	}
	c.All = len(v.snapshot.Flags())
	for _, f := range v.snapshot.Flags() {
		switch f.State {
		case flags.On:
			c.On++
		case flags.Targeted:
			c.Targeted++
		case flags.Rollout:
			c.Rollout++
		default:
			c.Off++
		}
	}
	return c
}

// row is a flag in the list; env is the environment's index.
func (a *app) row(s *flags.Snapshot, f *flags.Flag, env int) templates.FlagRow {
	r := templates.FlagRow{Key: f.Key, Description: f.Description, State: stateOf(f), Version: f.Version,
		Reach: a.reach.Of(s, f)[env], Total: len(s.Tenants()), Changed: a.time(f.UpdatedAt)}
	r.Tags, r.Unused = whoGetsIt(f)
	r.Width = "0"
	if r.Total > 0 {
		r.Width = strconv.FormatFloat(100*float64(r.Reach)/float64(r.Total), 'f', 1, 64)
	}
	return r
}

// listFlagsPage is the list, whole or as the fragment that a filter replaces.
func (a *app) listFlagsPage(w http.ResponseWriter, r *http.Request, v visit) error {
	filter := a.filterOf(r.URL.Query(), v)
	if wantsFragment(r) {
		current := ""
		address := "/operator/flags" + filter.Query
		if u, err := url.Parse(r.Header.Get("HX-Current-URL")); err == nil { // a panel stays open while the list is filtered
			if key, open := strings.CutPrefix(u.Path, "/operator/flags/"); open && v.snapshot.Flag(key) != nil {
				current, address = key, u.Path+filter.Query
			}
		}
		switch r.Header.Get("HX-Source") {
		case "input#q", "div#list": // typing, and a list that asks for itself, are no steps to go back to
			w.Header().Set("HX-Replace-Url", address)
		default:
			w.Header().Set("HX-Push-Url", address)
		}
		list := a.list(v, filter, current)
		return a.swaps(w, http.StatusOK, templates.Swaps{Main: list, Parts: []templates.Part{
			{Target: "#list-count", Swap: "textContent", Text: plural(list.Matches, "flag")},
			{Target: "#pills", Swap: "innerHTML", View: list.Counts},
			{Target: "#facets", Swap: "innerHTML", View: templates.Facets(list.Facets)},
			{Target: "#fresh", Swap: "innerHTML", Text: ""},
		}})
	}
	return a.flagsPage(w, http.StatusOK, v, templates.FlagsPage{List: a.list(v, filter, "")}, "Flags")
}

func (a *app) flagsPage(w http.ResponseWriter, status int, v visit, p templates.FlagsPage, title string) error {
	p.Chrome = a.chrome(v, "flags", title)
	return a.html(w, status, p)
}

// queryOf reads a query that begins with "?".
func queryOf(query string) url.Values {
	q, err := url.ParseQuery(strings.TrimPrefix(query, "?"))
	if err != nil {
		return url.Values{}
	}
	return q
}

func (a *app) countParts(v visit) []templates.Part {
	c := a.counts(v, templates.FlagFilter{})
	var parts []templates.Part
	for id, n := range map[string]int{"all": c.All, "on": c.On, "targeted": c.Targeted, "rollout": c.Rollout, "off": c.Off} {
		parts = append(parts, templates.Part{Target: "#count-" + id, Swap: "textContent", Text: strconv.Itoa(n)})
	}
	slices.SortFunc(parts, func(a, b templates.Part) int { return strings.Compare(a.Target, b.Target) })
	return parts
}

// newRow are the fragments that put a flag first in the list, whether or not the filter lets it through.
func (a *app) newRow(r *http.Request, v visit, f *flags.Flag) []templates.Part {
	list := a.listBehind(r, v)
	row := a.row(v.snapshot, f, slices.Index(v.snapshot.Environments(), v.env))
	row.Current, row.Query = true, list.Filter.Query
	part := templates.Part{Target: "#rows", Swap: "afterbegin", View: row}
	if !slices.ContainsFunc(list.Rows, func(r templates.FlagRow) bool { return r.Key != f.Key }) { // there is no table yet
		list.Rows = []templates.FlagRow{row}
		part = templates.Part{Target: "#list", Swap: "innerHTML", View: list}
	}
	return append([]templates.Part{part, {Target: "#list-count", Swap: "textContent", Text: plural(list.Matches, "flag")}}, a.countParts(v)...)
}

// listBehind is the list of the page that htmx asks from.
func (a *app) listBehind(r *http.Request, v visit) templates.FlagList {
	page, err := url.Parse(r.Header.Get("HX-Current-URL"))
	if err != nil {
		page = &url.URL{}
	}
	return a.list(v, a.filterOf(page.Query(), v), "")
}

func currentPath(r *http.Request) string {
	u, err := url.Parse(r.Header.Get("HX-Current-URL"))
	if err != nil {
		return ""
	}
	return u.Path
}
