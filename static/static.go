// Package static holds the files that pages load, under addresses that change with their content.
package static

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed css js vendor icon.svg
var files embed.FS

const prefix = "/static/"

// bundles are the files that are sent as one, in this order. htmx's extension must register before htmx
// starts, which separate deferred scripts do not promise.
var bundles = map[string][]string{
	"console.css": {"css/tokens.css", "css/console.css", "css/pages.css"},
	"docs.css":    {"css/tokens.css", "css/docs.css"},
	"console.js":  {"vendor/htmx.min.js", "vendor/hx-sse.min.js", "js/console.js"},
	"icon.svg":    {"icon.svg"},
}

type file struct {
	content     []byte
	compressed  []byte // by gzip
	contentType string
}

// urls maps a bundle's name to its address, byURL an address to what it serves.
var urls, byURL = index()

func index() (map[string]string, map[string]file) {
	urls, byURL := map[string]string{}, map[string]file{}
	for name, parts := range bundles {
		var content []byte
		for _, part := range parts {
			text, err := fs.ReadFile(files, part)
			if err != nil {
				panic(err) // embedded files can always be read
			}
			content = append(append(content, bytes.TrimRight(text, "\n")...), '\n')
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(name)
		url := prefix + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:8]) + ext
		urls[name] = url
		byURL[url] = file{content, compress(content), contentTypes[ext]}
	}
	return urls, byURL
}

var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func compress(content []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}

// URL returns the address of a file, such as /static/docs.3f2a91c04b7de865.css for docs.css.
// It panics if there is no such file: only our own templates ask.
func URL(name string) string {
	url, ok := urls[name]
	if !ok {
		panic(fmt.Sprintf("static: no file %q", name))
	}
	return url
}

// Handler serves GET and HEAD of the addresses that URL gives, to be kept for ever. Any other address,
// an earlier content's too, is 404.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := byURL[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", f.contentType)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("Vary", "Accept-Encoding")
		content := f.content
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			content = f.compressed
		}
		h.Set("Content-Length", strconv.Itoa(len(content)))
		if r.Method != http.MethodHead {
			w.Write(content)
		}
	})
}
