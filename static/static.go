// Package static holds the files that pages load, under addresses that change with their content.
package static

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed css icon.svg
var files embed.FS

const prefix = "/static/"

type file struct {
	content     []byte
	contentType string
}

// urls maps a file's name to its address, byURL an address to what it serves.
var urls, byURL = index(files)

func index(files fs.FS) (map[string]string, map[string]file) {
	urls, byURL := map[string]string{}, map[string]file{}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		ext := path.Ext(name)
		url := prefix + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:8]) + ext
		urls[name] = url
		byURL[url] = file{content, mime.TypeByExtension(ext)}
		return nil
	})
	if err != nil {
		panic(err) // embedded files can always be read
	}
	return urls, byURL
}

// URL returns the address of a file, such as /static/css/docs.3f2a91c04b7de865.css for css/docs.css.
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
		w.Header().Set("Content-Type", f.contentType)
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		http.ServeContent(w, r, r.URL.Path, time.Time{}, bytes.NewReader(f.content))
	})
}
