// Package provisioningtest runs a server that speaks Authentik's API of groups, as its published schema says.
package provisioningtest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Token is the one that the server takes.
const Token = "ak-0123456789abcdef"

// Group is one of Authentik's.
type Group struct {
	PK         string
	Name       string
	Attributes map[string]any
	Users      []int
	Superuser  bool
	Hidden     bool // the token's account can't see it
	Fixed      bool // the token's account can see it and do nothing with it
}

// Server is an Authentik with groups alone. Its methods may be called at once from anywhere.
type Server struct {
	URL string

	t        testing.TB
	mu       sync.Mutex
	listener net.Listener // nil while it is down
	http     *http.Server
	pageSize int
	instead  http.HandlerFunc
	groups   []Group
	calls    []string
	now      int
	most     int
}

// New starts a server whose pages have at most two groups, until the test ends.
func New(t testing.TB) *Server {
	s := &Server{t: t, pageSize: 2}
	s.listen("127.0.0.1:0")
	s.URL = "http://" + s.listener.Addr().String()
	t.Cleanup(s.Down)
	return s
}

func (s *Server) listen(address string) {
	s.t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.listener = listener
	s.http = &http.Server{Handler: s, ErrorLog: log.New(s.t.Output(), "", 0)}
	go s.http.Serve(listener)
}

// Down ends the server and every connection to it.
func (s *Server) Down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		s.http.Close()
		s.listener = nil
	}
}

// Up has it listen again where it did.
func (s *Server) Up() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listen(strings.TrimPrefix(s.URL, "http://"))
}

// Behave has every request answered by fn from now on; nil: as Authentik does.
func (s *Server) Behave(fn http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = fn
}

// Put adds a group past the API, as a person does in the interface, and returns its key.
func (s *Server) Put(g Group) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.PK = uuid()
	s.groups = append(s.groups, g)
	return g.PK
}

// Join puts a person into every group of a name.
func (s *Server) Join(name string, user int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.groups {
		if s.groups[i].Name == name {
			s.groups[i].Users = append(s.groups[i].Users, user)
		}
	}
}

// Groups returns the groups of a name, the oldest first; of every name if that is "".
func (s *Server) Groups(name string) []Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Group
	for _, g := range s.groups {
		if name == "" || g.Name == name {
			g.Attributes, g.Users = maps.Clone(g.Attributes), slices.Clone(g.Users)
			out = append(out, g)
		}
	}
	return out
}

// Calls returns the methods of the requests since it was last asked.
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.calls
	s.calls = nil
	return out
}

// Most returns how many requests there were at once at the most.
func (s *Server) Most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

func uuid() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Detail answers with a status and an explanation.
func Detail(w http.ResponseWriter, status int, words string) {
	reply(w, status, map[string]string{"detail": words})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// notFound is Authentik's word for what is not there.
const notFound = "No Group matches the given query."

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.calls = append(s.calls, r.Method)
	s.now++
	s.most = max(s.most, s.now)
	instead := s.instead
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now--
		s.mu.Unlock()
	}()
	if instead != nil {
		instead(w, r)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+Token {
		Detail(w, http.StatusForbidden, "Token invalid/expired")
		return
	}
	key, ok := strings.CutPrefix(r.URL.Path, "/api/v3/core/groups/")
	if !ok || key != "" && !strings.HasSuffix(key, "/") {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case key == "" && r.Method == http.MethodGet:
		s.list(w, r)
	case key == "" && r.Method == http.MethodPost:
		s.create(w, r)
	case key == "":
		Detail(w, http.StatusMethodNotAllowed, `Method "`+r.Method+`" not allowed.`)
	default:
		s.one(w, r, strings.TrimSuffix(key, "/"))
	}
}

// show is a group as the schema has it; without include_users its users_obj is null.
func show(g Group) map[string]any {
	return map[string]any{"pk": g.PK, "num_pk": 4711, "name": g.Name, "is_superuser": g.Superuser, "parents": []string{}, "parents_obj": nil,
		"users": append([]int{}, g.Users...), "users_obj": nil, "attributes": g.Attributes, "roles": []string{}, "roles_obj": []any{}}
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	var found []Group
	for _, g := range s.groups {
		if name := r.URL.Query().Get("name"); !g.Hidden && (name == "" || g.Name == name) {
			found = append(found, g)
		}
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil {
			return n
		}
		return otherwise
	}
	size := min(number("page_size", s.pageSize), s.pageSize)
	page, pages := number("page", 1), max(1, (len(found)+size-1)/size)
	if page < 1 || page > pages {
		Detail(w, http.StatusNotFound, "Invalid page.")
		return
	}
	next := 0
	if page < pages {
		next = page + 1
	}
	results := []map[string]any{}
	from, to := (page-1)*size, min(page*size, len(found))
	for _, g := range found[from:to] {
		results = append(results, show(g))
	}
	reply(w, http.StatusOK, map[string]any{"results": results, "autocomplete": map[string]any{},
		"pagination": map[string]int{"next": next, "previous": page - 1, "count": len(found), "current": page, "total_pages": pages, "start_index": from + 1, "end_index": to}})
}

// body reads what may be written of a group; the appliance is to write nothing else.
func (s *Server) body(w http.ResponseWriter, r *http.Request) (name *string, attributes map[string]any, ok bool) {
	var in map[string]any
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("Content-Type") != "application/json" {
		Detail(w, http.StatusBadRequest, "JSON parse error")
		return nil, nil, false
	}
	for field, value := range in {
		switch text, isText := value.(string); {
		case field == "name" && isText && text != "":
			name = &text
		case field == "attributes":
			if attributes, ok = value.(map[string]any); !ok {
				reply(w, http.StatusBadRequest, map[string][]string{"attributes": {"Value must be a dictionary, and not have any duplicate keys."}})
				return nil, nil, false
			}
		default:
			s.t.Errorf("%s %s writes %s: %v", r.Method, r.URL.Path, field, value)
		}
	}
	return name, attributes, true
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	name, attributes, ok := s.body(w, r)
	switch {
	case !ok:
	case name == nil:
		reply(w, http.StatusBadRequest, map[string][]string{"name": {"This field is required."}})
	case slices.ContainsFunc(s.groups, func(g Group) bool { return g.Name == *name }):
		reply(w, http.StatusBadRequest, map[string][]string{"name": {"group with this name already exists."}})
	default:
		g := Group{PK: uuid(), Name: *name, Attributes: attributes}
		s.groups = append(s.groups, g)
		reply(w, http.StatusCreated, show(g))
	}
}

func (s *Server) one(w http.ResponseWriter, r *http.Request, pk string) {
	i := slices.IndexFunc(s.groups, func(g Group) bool { return g.PK == pk && !g.Hidden })
	if i < 0 || s.groups[i].Fixed {
		Detail(w, http.StatusNotFound, notFound)
		return
	}
	switch g := &s.groups[i]; r.Method {
	case http.MethodPatch:
		name, attributes, ok := s.body(w, r)
		if !ok {
			return
		}
		if name != nil {
			g.Name = *name
		}
		if attributes != nil {
			g.Attributes = attributes
		}
		reply(w, http.StatusOK, show(*g))
	case http.MethodDelete:
		s.groups = slices.Delete(s.groups, i, i+1)
		w.WriteHeader(http.StatusNoContent)
	default:
		Detail(w, http.StatusMethodNotAllowed, `Method "`+r.Method+`" not allowed.`)
	}
}
