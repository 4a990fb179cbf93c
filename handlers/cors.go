package handlers

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// crossOrigin tells whether pages of other origins may use a path, those of Appliance.Origins: it is of
// evaluation, and takes no cookie.
func crossOrigin(path string) bool {
	return path == "/flags/evaluate" || strings.HasPrefix(path, "/ofrep/")
}

// What a page may send and read beside what the Fetch standard lets through.
const (
	corsSent = "Authorization, Content-Type, If-None-Match, X-API-Key"
	corsRead = "ETag, Retry-After, X-Request-Id"
)

// shared lets pages of the configured origins read a route's answers.
func (a *app) shared(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head["Vary"] = varyOrigin
		if origin := r.Header.Get("Origin"); slices.Contains(a.origins, origin) {
			head.Set("Access-Control-Allow-Origin", origin)
			head.Set("Access-Control-Expose-Headers", corsRead)
		}
		h.ServeHTTP(w, r)
	})
}

var varyOrigin = []string{"Origin"}

// preflight answers whether a page may call a route with a method.
func (a *app) preflight(method string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder)
		rec.routed, rec.quiet = true, true
		head, origin := w.Header(), r.Header.Get("Origin")
		head["Vary"] = varyOrigin
		if !slices.Contains(a.origins, origin) {
			a.server.fail(rec, r, &refusal{http.StatusForbidden, "forbidden",
				fmt.Sprintf("pages of the origin %q may not call this; PLATFORM_API_CORS_ORIGINS names those that may", origin)})
			return
		}
		head.Set("Access-Control-Allow-Origin", origin)
		head.Set("Access-Control-Allow-Methods", method)
		head.Set("Access-Control-Allow-Headers", corsSent)
		head.Set("Access-Control-Max-Age", "7200") // seconds; browsers take no longer
		w.WriteHeader(http.StatusNoContent)
	})
}
