package handlers

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/db"
	"github.com/dezky/platform-api/flags"
	"github.com/dezky/platform-api/templates"
)

// tokenDays is the most days that the form lets a token live, and usualDays what it proposes.
const (
	tokenDays = 3650
	usualDays = "90"
)

// tokensPage is the API tokens.
func (a *app) tokensPage(w http.ResponseWriter, r *http.Request, v visit) error {
	page := templates.TokensPage{Form: tokenForm(v, db.NewToken{Role: "evaluate"}, usualDays)}
	if id := r.URL.Query().Get("revoked"); id != "" {
		page.Revoked = id // showTokens finds the name
	}
	return a.showTokens(w, r, v, http.StatusOK, page)
}

// showTokens fills a page with the tokens: those that work first, and the newest first.
func (a *app) showTokens(w http.ResponseWriter, r *http.Request, v visit, status int, page templates.TokensPage) error {
	tokens, err := a.db.Tokens(r.Context())
	if err != nil {
		return err
	}
	now := a.now()
	slices.Reverse(tokens)
	slices.SortStableFunc(tokens, func(x, y db.Token) int { return cmp.Compare(rankToken(x, now), rankToken(y, now)) })
	page.Chrome = a.chrome(v, "tokens", "API tokens")
	revoked := ""
	for _, t := range tokens {
		if t.Usable(now) {
			page.Active++
		}
		if t.ID == page.Revoked && !t.RevokedAt.IsZero() {
			revoked = t.Name
		}
		page.Rows = append(page.Rows, a.tokenRow(t, now))
	}
	page.Revoked = revoked
	return a.html(w, status, page)
}

func rankToken(t db.Token, now time.Time) int {
	if t.Usable(now) {
		return 0
	}
	return 1
}

func (a *app) tokenRow(t db.Token, now time.Time) templates.TokenRow {
	row := templates.TokenRow{ID: t.ID, Name: t.Name, Role: t.Role, Env: cmp.Or(t.Environment, "every environment"), Status: "Active",
		CreatedBy: t.CreatedBy, Created: a.time(t.CreatedAt), Revocable: t.RevokedAt.IsZero()}
	if !t.LastUsedAt.IsZero() {
		used := a.time(t.LastUsedAt)
		row.Used = &used
	}
	switch ends := t.ExpiresAt; {
	case !t.RevokedAt.IsZero():
		at := a.time(t.RevokedAt)
		row.Status, row.Ends, row.EndsWord = "Revoked", &at, "revoked"
	case ends.IsZero():
	case !now.Before(ends):
		at := a.time(ends)
		row.Status, row.Ends, row.EndsWord = "Expired", &at, "expired"
	default:
		row.Ends = &templates.Time{At: ends, Ago: in(ends, now)}
	}
	return row
}

// in says how long it is until then.
func in(t, now time.Time) string {
	switch d := t.Sub(now); {
	case d < time.Hour:
		return "in " + plural(int(d/time.Minute)+1, "minute")
	case d < 48*time.Hour:
		return "in " + plural(int(d/time.Hour), "hour")
	default:
		return "in " + plural(int((d+12*time.Hour)/(24*time.Hour)), "day")
	}
}

func tokenForm(v visit, n db.NewToken, days string) templates.TokenForm {
	f := templates.TokenForm{Name: n.Name, Days: days, Errors: map[string]string{}}
	for _, role := range slices.Backward(db.TokenRoles) { // the least first
		f.Roles = append(f.Roles, templates.Choice{Value: role, Label: role, Checked: role == n.Role})
	}
	f.Envs = []templates.Choice{{Label: "every environment", Checked: n.Environment == ""}}
	for _, env := range v.snapshot.Environments() {
		f.Envs = append(f.Envs, templates.Choice{Value: env, Label: env, Checked: env == n.Environment})
	}
	return f
}

// makeToken makes an API token and shows its secret, this once. There is no redirect, because nothing
// keeps the secret; posting the form again meets the name, which is not used twice.
func (a *app) makeToken(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("form: %w", err)
	}
	n := db.NewToken{Name: strings.TrimSpace(r.PostFormValue("name")), Role: r.PostFormValue("role"), Environment: r.PostFormValue("env")}
	days := strings.TrimSpace(r.PostFormValue("days"))
	wrongDays := ""
	if days != "" {
		if whole, err := strconv.Atoi(days); err != nil || whole < 1 || whole > tokenDays {
			wrongDays = fmt.Sprintf("Must be a whole number of days from 1 to %d, or empty.", tokenDays)
		} else {
			n.Expires = time.Duration(whole) * 24 * time.Hour
		}
	}
	page := templates.TokensPage{Form: tokenForm(v, n, days)}
	fail := func(status int, errs map[string]string) error {
		page.Form.Open, page.Form.Errors = true, errs
		return a.showTokens(w, r, v, status, page)
	}
	if wrongDays != "" {
		errs := fieldErrors(n.Check(v.snapshot.Environments()))
		errs["days"] = wrongDays
		return fail(http.StatusUnprocessableEntity, errs)
	}
	secret, t, err := a.db.CreateToken(r.Context(), v.principal.By(), n)
	var invalid *flags.Invalid
	var conflict *flags.Conflict
	var alone *db.NotReplicated
	status, warning := http.StatusOK, ""
	switch {
	case errors.As(err, &alone): // it is made, and its secret is seen now or never
		status, warning = http.StatusServiceUnavailable, sentence(alone.Error())
	case errors.As(err, &invalid):
		return fail(http.StatusUnprocessableEntity, fieldErrors(invalid.Errors))
	case errors.As(err, &conflict):
		return fail(http.StatusConflict, map[string]string{"name": sentence(conflict.Message)})
	case err != nil:
		return err
	}
	page.Form = tokenForm(v, db.NewToken{Role: "evaluate"}, usualDays)
	page.Secret = &templates.TokenSecret{Name: t.Name, Secret: secret, Warning: warning}
	return a.showTokens(w, r, v, status, page)
}

// fieldErrors are the messages by field.
func fieldErrors(bad []flags.FieldError) map[string]string {
	out := map[string]string{}
	for _, e := range bad {
		out[e.Field] = strings.TrimSpace(out[e.Field] + " " + sentence(e.Message))
	}
	return out
}

// token returns the token in the path.
func (a *app) token(r *http.Request) (db.Token, error) {
	tokens, err := a.db.Tokens(r.Context())
	if err != nil {
		return db.Token{}, err
	}
	id := r.PathValue("id")
	i := slices.IndexFunc(tokens, func(t db.Token) bool { return t.ID == id })
	if i < 0 {
		return db.Token{}, fmt.Errorf("API token %q: %w", id, flags.ErrNotFound)
	}
	return tokens[i], nil
}

// askRevoke asks before a token is revoked: that can't be undone.
func (a *app) askRevoke(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.token(r)
	if err != nil {
		return err
	}
	if !t.RevokedAt.IsZero() {
		return &refusal{http.StatusConflict, "conflict", t.Name + " is revoked already"}
	}
	ask := templates.RevokeToken{ID: t.ID, Name: t.Name, Role: t.Role}
	if !t.LastUsedAt.IsZero() {
		used := a.time(t.LastUsedAt)
		ask.Used = &used
	}
	if wantsFragment(r) {
		return a.html(w, http.StatusOK, ask)
	}
	ask.Page = true
	return a.showTokens(w, r, v, http.StatusOK, templates.TokensPage{Form: tokenForm(v, db.NewToken{Role: "evaluate"}, usualDays), Ask: &ask})
}

// revokeToken ends a token for ever.
func (a *app) revokeToken(w http.ResponseWriter, r *http.Request, v visit) error {
	t, err := a.db.RevokeToken(r.Context(), v.principal.By(), r.PathValue("id"))
	if err != nil {
		return err
	}
	a.tokens.Forget(t.ID)
	http.Redirect(w, r, address("/operator/tokens", "revoked", t.ID), http.StatusSeeOther)
	return nil
}
