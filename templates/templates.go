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

//go:embed layout.html pages
var files embed.FS

// pages are the parsed pages by name, each with its own copy of the layout.
var pages = parse()

func parse() map[string]*template.Template {
	layout := template.Must(template.New("layout.html").
		Funcs(template.FuncMap{"asset": static.URL}).
		ParseFS(files, "layout.html"))
	names, err := fs.Glob(files, "pages/*.html")
	if err != nil {
		panic(err) // the pattern is constant
	}
	pages := map[string]*template.Template{}
	for _, name := range names {
		page := template.Must(template.Must(layout.Clone()).ParseFS(files, name))
		pages[strings.TrimSuffix(path.Base(name), ".html")] = page
	}
	return pages
}

// View is what one page shows. Only the structs of this package are views, so each page gets its own.
type View interface {
	page() string
}

// Render writes the page of a view. Nothing is written if the template fails; the error then names it.
func Render(w io.Writer, v View) error {
	page, ok := pages[v.page()]
	if !ok {
		return fmt.Errorf("page %q: no such template", v.page())
	}
	var buf bytes.Buffer
	if err := page.ExecuteTemplate(&buf, "layout", v); err != nil {
		return fmt.Errorf("page %q: %w", v.page(), err)
	}
	if _, err := buf.WriteTo(w); err != nil {
		return fmt.Errorf("page %q: write: %w", v.page(), err)
	}
	return nil
}
