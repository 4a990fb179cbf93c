package templates

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// views are all views of the console.
var views = []View{
	FlagsPage{}, FlagList{}, Facets{}, FlagNow{}, FlagConsumers{}, StateCounts{}, FlagRow{}, FlagPanel{}, Impact{}, Conflict{}, Confirm{}, Delete{}, Explain{}, FlagHistory{}, FlagLife{}, NewFlag{}, Alarm{}, Freeze{}, Toast{},
	Palette{}, Suggest{}, Datalist{}, SignIn{}, NoGroup{}, SignInLink{}, SignInDialog{}, ErrorPage{},
	TenantsPage{}, TenantList{}, PlanPills{}, TenantPage{}, TenantTop{}, TenantEdit{}, TenantNew{}, TenantImpact{}, TenantRemove{}, Provisioning{}, ImportPage{}, ImportState{}, Reconciling{}, ReconcileAll{}, PartnersPage{}, PartnerList{}, NewPartner{}, PartnerEdit{}, PartnerRemoval{}, AuditPage{}, AuditEntryPage{}, DifferencePage{}, RestorePage{}, RestoreList{}, RestoreTally{}, UndoAll{}, ConfirmRestore{}, TokensPage{}, RevokeToken{}, StatusPage{}, SettingsPage{},
}

// hostile is text that would end an attribute or begin an element if it were not escaped.
const hostile = `<i>"'&`

// fill gives every field a value, so that every branch that asks for one is taken.
func fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth-1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), depth)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, key := range []string{"", "on", "targeted", "rollout", "off", "state", "pct", "partner", "tenant", "description", "note", "name", "slug", "id", "plan", "status", "role", "env", "days"} {
			v.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(hostile))
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf(Toast{Text: hostile}))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), depth)
			if v.Type().Field(i).Name == "Icon" {
				v.Field(i).SetString("plus") // a shape that there is
			}
		}
	}
}

var (
	handlerAttribute = regexp.MustCompile(`<[^>]*\son[a-z]+\s*=`)
	scriptElement    = regexp.MustCompile(`<script\b[^>]*>([^<]*)`)
)

func TestRenderEveryView(t *testing.T) {
	for _, empty := range views {
		full := reflect.New(reflect.TypeOf(empty))
		fill(full.Elem(), 2)
		for state, v := range map[string]View{"empty": empty, "full": full.Elem().Interface().(View)} {
			name := reflect.TypeOf(v).Name() + ", " + state
			var b bytes.Buffer
			if err := Render(&b, v); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			text := b.String()
			for _, bad := range []string{" style=", "<style", "<no value>", "ZgotmplZ", "javascript:", "hx-on", "js:", hostile, "<i>\"", "%!"} {
				if strings.Contains(text, bad) {
					t.Errorf("%s: contains %q", name, bad)
				}
			}
			if found := handlerAttribute.FindString(text); found != "" {
				t.Errorf("%s: has the attribute %q", name, found)
			}
			for _, m := range scriptElement.FindAllStringSubmatch(text, -1) {
				if !strings.Contains(m[0], " src=") || strings.TrimSpace(m[1]) != "" {
					t.Errorf("%s: inline script %q", name, m[0])
				}
			}
			if page, layout := v.template(); layout == "layout" {
				if n := strings.Count(text, "<h1"); n != 1 {
					t.Errorf("%s: %d h1 on the page %s, want 1", name, n, page)
				}
			}
		}
	}
}

// A view that is not in the list is not tested.
func TestRenderKnowsEveryView(t *testing.T) {
	var known []string
	for _, v := range views {
		known = append(known, reflect.TypeOf(v).Name())
	}
	names, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Name.Name != "template" || f.Recv == nil {
				continue
			}
			found++
			if view := f.Recv.List[0].Type.(*ast.Ident).Name; view != "Docs" && !slices.Contains(known, view) {
				t.Errorf("the view %s is not tested", view)
			}
		}
	}
	if found < len(known) {
		t.Errorf("%d views in the source, %d in the list", found, len(known))
	}
}
