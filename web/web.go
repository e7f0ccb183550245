// Package web is the first page: what a browser gets at "/". It is plain HTML,
// CSS and ES modules, embedded as they are, with no build step and nothing from
// another origin, so it also works where there is no internet.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"time"
)

//go:embed console
var files embed.FS

// index is the file that "/" stands for.
const index = "console/index.html"

// policy allows the page its own files and connections to its own origin, which
// in today's browsers covers ws: and wss: too. Nothing inline, so a payload that
// finds its way into the markup can run nothing.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// contentTypes are ours, not the machine's: with nosniff a wrong one breaks the page.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// page is one served file.
type page struct {
	contentType string
	etag        string
	body        []byte
}

// pages are all served files by URL path. It is built once and then only read.
var pages = load()

func load() map[string]page {
	all := make(map[string]page)
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		url := "/" + name
		if name == index {
			url = "/"
		}
		sum := sha256.Sum256(body)
		all[url] = page{
			contentType: contentTypes[path.Ext(name)],
			etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
			body:        body,
		}
		return nil
	})
	if err != nil {
		panic("web: the embedded files do not read: " + err.Error())
	}
	return all
}

// Paths lists the URL paths that Handler serves, sorted, "/" first.
func Paths() []string {
	paths := make([]string, 0, len(pages))
	for p := range pages {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// Handler serves the page and its files at Paths, for GET and HEAD. Browsers ask
// again each time and get 304 while the content is the same, so that a new
// binary's page is never mixed with an old one's. Any other path is 404, any
// other method 405; all answers carry the security headers.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		p, known := pages[r.URL.Path]
		switch {
		case !known:
			http.NotFound(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		default:
			w.Header().Set("Content-Type", p.contentType)
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("ETag", p.etag)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.body))
		}
	})
}

func secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}
