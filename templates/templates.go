// Package templates turns views into HTML: one Go struct for each template.
package templates

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/dezky/platform-api/static"
)

//go:embed layout.html pages partials
var files embed.FS

// pages are the parsed pages by name, each with its own copy of the layout and the partials; the one
// without a name has the partials alone.
var pages map[string]*template.Template

func init() { pages = parse() } // not where it is declared: a template may render another view

func parse() map[string]*template.Template {
	// fragment renders another view inside a template.
	fragment := func(v View) (template.HTML, error) {
		var buf bytes.Buffer
		err := execute(&buf, v)
		return template.HTML(buf.String()), err // made by our own templates, which escape
	}
	common := template.Must(template.New("layout.html").
		Funcs(template.FuncMap{"asset": static.URL, "icon": icon, "stateIcon": stateIcon, "pill": newPill, "fragment": fragment}).
		ParseFS(files, "layout.html", "partials/*.html"))
	names, err := fs.Glob(files, "pages/*.html")
	if err != nil {
		panic(err) // the pattern is constant
	}
	pages := map[string]*template.Template{"": common}
	for _, name := range names {
		page := template.Must(template.Must(common.Clone()).ParseFS(files, name))
		pages[strings.TrimSuffix(path.Base(name), ".html")] = page
	}
	return pages
}

// View is what one page or one fragment shows. Only the structs of this package are views.
type View interface {
	template() (page, name string)
}

// Render writes a view. Nothing is written if the template fails; the error then names it.
func Render(w io.Writer, v View) error {
	var buf bytes.Buffer
	if err := execute(&buf, v); err != nil {
		return err
	}
	if _, err := buf.WriteTo(w); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func execute(buf *bytes.Buffer, v View) error {
	page, name := v.template()
	set, ok := pages[page]
	if !ok {
		return fmt.Errorf("page %q: no such template", page)
	}
	if err := set.ExecuteTemplate(buf, name, v); err != nil {
		return fmt.Errorf("page %q, template %q: %w", page, name, err)
	}
	return nil
}

// RenderSwaps writes several fragments as one answer to htmx: the request's own, and one <hx-partial>
// for each other place.
func RenderSwaps(w io.Writer, s Swaps) error {
	var buf bytes.Buffer
	if s.Title != "" {
		buf.WriteString("<title>" + template.HTMLEscapeString(s.Title) + " · Dezky</title>")
	}
	if s.Main != nil {
		if err := execute(&buf, s.Main); err != nil {
			return err
		}
	}
	for _, p := range s.Parts {
		fmt.Fprintf(&buf, `<hx-partial hx-target="%s" hx-swap="%s">`, template.HTMLEscapeString(p.Target), template.HTMLEscapeString(p.Swap))
		if p.View != nil {
			if err := execute(&buf, p.View); err != nil {
				return err
			}
		} else {
			buf.WriteString(template.HTMLEscapeString(p.Text))
		}
		buf.WriteString("</hx-partial>")
	}
	if _, err := buf.WriteTo(w); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
