package provisioning

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dezky/platform-api/flags"
)

// Bounds of what Authentik may cost.
const (
	requestWithin = 10 * time.Second // one request with its answer
	answerMost    = 4 << 20          // bytes of an answer: a group lists the numbers of its members
	pagesMost     = 10               // of a list, which is of the groups of one name
	detailMost    = 200              // characters of Authentik's own words that are passed on
)

// The attributes of a group that say whose it is.
const (
	attributeID      = "dezky_tenant_id"
	attributeName    = "dezky_tenant_name"
	attributePlan    = "dezky_plan"
	attributePartner = "dezky_partner"
)

// Authentik keeps the groups of an Authentik by its API of version 3, /api/v3/core/groups/. It sets names and
// attributes of groups, and touches neither members nor parents nor what a group may do.
type Authentik struct {
	base   string // without a slash at its end
	token  string
	client *http.Client
}

// NewAuthentik returns a client of the Authentik at an address that CheckURL finds right. It asks nothing yet.
func NewAuthentik(address, token string) *Authentik {
	return &Authentik{strings.TrimRight(address, "/"), token, &http.Client{
		Timeout:       requestWithin,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}}
}

// CheckURL says what is wrong with Authentik's address, or "". The token must not travel in the clear.
func CheckURL(address string) string {
	u, err := url.Parse(address)
	ok := err == nil && u.Hostname() != "" && u.User == nil && !strings.ContainsAny(address, "?#")
	if ok && u.Scheme == "http" {
		ip := net.ParseIP(u.Hostname())
		ok = u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	} else {
		ok = ok && u.Scheme == "https"
	}
	switch {
	case !ok:
		return fmt.Sprintf("%q is not an https address such as https://id.example.com (http only on loopback)", address)
	case strings.Contains(u.Path+"/", "/api/"):
		return fmt.Sprintf("%q is to end before /api/", address)
	}
	return ""
}

// CheckToken says what is wrong with a token for Authentik, or "".
func CheckToken(token string) string {
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "is not a token: it has spaces or characters that no token has"
	}
	return ""
}

// Failure is why Authentik could not be brought in line, in words for the people who run the appliance.
type Failure struct {
	Words string
	Wait  time.Duration // that Authentik asks for before anybody asks it again; 0: none
}

func (f *Failure) Error() string { return f.Words }

func failure(format string, args ...any) error { return &Failure{Words: fmt.Sprintf(format, args...)} }

// group is what matters of one of Authentik's.
type group struct {
	PK         string                     `json:"pk"`
	Name       string                     `json:"name"`
	Attributes map[string]json.RawMessage `json:"attributes"`
}

// owner is the tenant's id that the group carries, or "".
func (g group) owner() string {
	var id string
	json.Unmarshal(g.Attributes[attributeID], &id) // anything but text is nobody's id
	return id
}

// Unmarked says what becomes of a group that has a tenant's name and carries no tenant's id: it was made by hand.
type Unmarked int

const (
	Adopt  Unmarked = iota // it was made for this tenant
	Refuse                 // it may have been made for an earlier tenant of that name: a person must say
	Renew                  // it was an earlier tenant's
)

func groupName(slug string) string { return "tenant:" + slug }

// Ensure makes that the group tenant:<slug> is there, is the tenant's, and carries its id, name, plan and
// partner; other attributes stay. A group that carries another tenant's id is removed with its memberships. It
// writes nothing where all is right. The error is a *Failure.
func (a *Authentik) Ensure(ctx context.Context, t *flags.Tenant, unmarked Unmarked) error {
	name := groupName(t.Slug)
	found, err := a.named(ctx, name)
	if err != nil {
		return err
	}
	var keep []group
	for _, g := range found {
		switch owner := g.owner(); {
		case owner == t.ID || owner == "" && unmarked == Adopt:
			keep = append(keep, g)
		case owner == "" && unmarked == Refuse:
			return failure("Authentik has a group %s that carries no %s, and this slug had another tenant before, whose people may be in it: remove the group there, or give it the attribute %s: %s if all its members belong here",
				name, attributeID, attributeID, t.ID)
		default:
			if err := a.remove(ctx, g); err != nil {
				return err
			}
		}
	}
	want := map[string]json.RawMessage{attributeID: text(t.ID), attributeName: text(t.Name), attributePlan: text(t.Plan), attributePartner: []byte("null")}
	if t.PartnerSlug != "" {
		want[attributePartner] = text(t.PartnerSlug)
	}
	switch len(keep) {
	case 0:
		return a.do(ctx, "create groups", "add_group", http.MethodPost, "", map[string]any{"name": name, "attributes": want}, http.StatusCreated, &group{})
	case 1:
	default:
		return failure("Authentik has %d groups %s: remove all but one there", len(keep), name)
	}
	merged, right := want, true
	for key, value := range keep[0].Attributes {
		if _, ours := merged[key]; !ours {
			merged[key] = value
		} else if !sameText(merged[key], value) {
			right = false
		}
	}
	for key := range want {
		_, there := keep[0].Attributes[key]
		right = right && there
	}
	if right {
		return nil
	}
	err = a.do(ctx, "change groups", "change_group", http.MethodPatch, keep[0].PK, map[string]any{"attributes": merged}, http.StatusOK, &group{})
	if errors.Is(err, errGone) {
		err = failure("the group %s is gone from Authentik meanwhile, or the token's account may see it and not change it: %s", name, grant("change_group"))
	}
	return err
}

func text(s string) json.RawMessage {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return b
}

// sameText tells whether two JSON values are the same text, or both null.
func sameText(a, b json.RawMessage) bool {
	var x, y *string
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && (x == nil) == (y == nil) && (x == nil || *x == *y)
}

// Remove makes that there is no group tenant:<slug>, whosever it was. The error is a *Failure.
func (a *Authentik) Remove(ctx context.Context, slug string) error {
	found, err := a.named(ctx, groupName(slug))
	for i := 0; err == nil && i < len(found); i++ {
		err = a.remove(ctx, found[i])
	}
	return err
}

// remove removes a group, and believes that it is gone only when it is not listed any more: Authentik says 404
// also of what an account may see and not remove.
func (a *Authentik) remove(ctx context.Context, g group) error {
	err := a.do(ctx, "remove groups", "delete_group", http.MethodDelete, g.PK, nil, http.StatusNoContent, nil)
	if !errors.Is(err, errGone) {
		return err
	}
	left, err := a.named(ctx, g.Name)
	if err == nil && slices.ContainsFunc(left, func(other group) bool { return other.PK == g.PK }) {
		err = failure("Authentik shows the token's account the group %s, and does not let it remove it: %s", g.Name, grant("delete_group"))
	}
	return err
}

// errGone is a 404 of a group.
var errGone = errors.New("no such group")

// named returns the groups of a name. It is unique to Authentik's API, not to its database.
func (a *Authentik) named(ctx context.Context, name string) ([]group, error) {
	var out []group
	for page := 1; page != 0; {
		var list struct {
			Pagination *struct {
				Next float64 `json:"next"` // the schema has a number; 0: this is the last page
			} `json:"pagination"`
			Results []group `json:"results"`
		}
		query := url.Values{"name": {name}, "include_users": {"false"}, "ordering": {"name"}, "page": {strconv.Itoa(page)}, "page_size": {"100"}}
		if err := a.do(ctx, "list groups", "view_group", http.MethodGet, "?"+query.Encode(), nil, http.StatusOK, &list); err != nil {
			return nil, err
		}
		if list.Pagination == nil {
			return nil, failure("%s answers with JSON that is no list of groups: is this Authentik's address?", a.base)
		}
		for _, g := range list.Results {
			if !isKey(g.PK) {
				return nil, failure("Authentik lists a group %s whose key %q is none", name, g.PK)
			}
			if g.Name == name {
				out = append(out, g)
			}
		}
		next := int(list.Pagination.Next)
		if next > pagesMost || next != 0 && next <= page {
			return nil, failure("Authentik lists more groups %s than there can be", name)
		}
		page = next
	}
	return out, nil
}

// isKey tells whether a text is a group's key, a UUID, and so safe in a path.
func isKey(pk string) bool {
	return len(pk) == 36 && !strings.ContainsFunc(pk, func(r rune) bool { return r != '-' && !strings.ContainsRune("0123456789abcdefABCDEF", r) })
}

// do sends one request about groups and decodes its answer. What it does is "list groups", say, which needs a
// permission; what is the query of a list or the key of a group.
func (a *Authentik) do(ctx context.Context, doing, permission, method, what string, in any, want int, out any) error {
	path := "/api/v3/core/groups/"
	if strings.HasPrefix(what, "?") {
		path += what
	} else if what != "" {
		path += what + "/"
	}
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return failure("a group can't be written as JSON: %v", err)
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return failure("a request to %s can't be made: %v", a.base, err)
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Accept", "application/json")
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		return a.away(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, answerMost+1))
	switch {
	case err != nil:
		return a.away(err)
	case len(answer) > answerMost:
		return failure("Authentik's answer is larger than %d MiB", answerMost>>20)
	case response.StatusCode == want && out == nil:
		return nil
	case response.StatusCode == want:
		if json.Unmarshal(answer, out) != nil {
			return failure("%s answers with something else than Authentik's JSON: is this Authentik's address, without a sign-in page before it?", a.base)
		}
		return nil
	case response.StatusCode == http.StatusNotFound && method != http.MethodGet && what != "":
		return errGone
	}
	return a.refused(response, answer, doing, permission)
}

// away says that there was no whole answer.
func (a *Authentik) away(err error) error {
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return failure("Authentik at %s did not answer in time", a.base)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the request's address
	}
	return failure("Authentik at %s can't be reached: %s", a.base, strings.ReplaceAll(err.Error(), a.token, "***"))
}

// refused says what an answer other than the wanted one means.
func (a *Authentik) refused(response *http.Response, answer []byte, doing, permission string) error {
	status := response.StatusCode
	said := a.said(answer)
	if said != "" {
		said = ": " + said
	}
	wait := retryAfter(response.Header.Get("Retry-After"))
	switch {
	case status >= 300 && status < 400:
		return failure("%s sends its callers elsewhere (%d): is this Authentik's own address?", a.base, status)
	case status == http.StatusUnauthorized || status == http.StatusForbidden: // Authentik says 403 of a bad token too
		return failure("Authentik does not let the token %s (%d%s): the token must be valid and of intent API, and %s", doing, status, said, grant(permission))
	case status == http.StatusNotFound:
		return failure("there is no API of Authentik at %s (404)", a.base)
	case status == http.StatusTooManyRequests:
		return &Failure{"Authentik is asked too often (429); it is left alone for a while", max(wait, time.Second)}
	case status >= 500:
		return &Failure{fmt.Sprintf("Authentik fails (%d%s)", status, said), wait}
	case status == http.StatusBadRequest && permission == "add_group":
		return failure("Authentik refuses the new group (400%s); if it says that the group exists, the token's account can't see it: %s", said, grant("view_group"))
	}
	return failure("Authentik refuses to %s (%d%s)", doing, status, said)
}

func grant(permission string) string {
	return "its account needs the permission authentik_core." + permission + " for all groups"
}

// said is Authentik's own explanation: {"detail": "…"}, or mistakes by field.
func (a *Authentik) said(answer []byte) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(answer, &fields) != nil {
		return ""
	}
	var parts []string
	for name, value := range fields {
		var one string
		var many []string
		if json.Unmarshal(value, &one) == nil {
			many = []string{one}
		} else if json.Unmarshal(value, &many) != nil {
			continue
		}
		for _, m := range many {
			if name != "detail" {
				m = name + ": " + m
			}
			parts = append(parts, m)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	slices.Sort(parts)
	said := strings.ReplaceAll(strings.Join(parts, "; "), a.token, "***")
	if runes := []rune(said); len(runes) > detailMost {
		said = string(runes[:detailMost]) + "…"
	}
	return strconv.QuoteToGraphic(said)
}

// retryAfter reads the header in seconds, which is all that Authentik sends.
func retryAfter(value string) time.Duration {
	seconds, err := strconv.Atoi(value)
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, backoffMost)
}
