package web_test

import (
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"flyscreen/gateway/wire"
	"flyscreen/web"
)

func do(t *testing.T, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	web.Handler().ServeHTTP(w, r)
	return w
}

func body(t *testing.T, target string) string {
	t.Helper()
	res := do(t, "GET", target)
	if res.Code != http.StatusOK {
		t.Fatalf("%s: %d", target, res.Code)
	}
	return res.Body.String()
}

func TestPaths(t *testing.T) {
	paths := web.Paths()
	if len(paths) < 2 || paths[0] != "/" || !slices.IsSorted(paths) {
		t.Fatalf("paths %q: want them sorted, / first", paths)
	}
	for _, p := range paths {
		if strings.TrimSpace(body(t, p)) == "" {
			t.Errorf("%s is empty", p)
		}
	}
}

func TestHeaders(t *testing.T) {
	types := map[string]string{
		"": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	}
	for _, p := range web.Paths() {
		for _, method := range []string{"GET", "HEAD"} {
			res := do(t, method, p)
			want := map[string]string{
				"Content-Type":           types[path.Ext(p)],
				"Cache-Control":          "no-cache",
				"X-Content-Type-Options": "nosniff",
				"X-Frame-Options":        "DENY",
				"Referrer-Policy":        "no-referrer",
			}
			for name, value := range want {
				if got := res.Header().Get(name); value == "" || got != value {
					t.Errorf("%s %s: %s is %q, want %q", method, p, name, got, value)
				}
			}
			if n := res.Body.Len(); (method == "HEAD") != (n == 0) {
				t.Errorf("%s %s: a body of %d bytes", method, p, n)
			}
		}
	}
}

func TestContentSecurityPolicy(t *testing.T) {
	policy := do(t, "GET", "/").Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
		"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !slices.Contains(strings.Split(policy, "; "), want) {
			t.Errorf("%q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("%q is too wide", policy)
	}
}

func TestETag(t *testing.T) {
	seen := map[string]string{}
	for _, p := range web.Paths() {
		etag := do(t, "GET", p).Header().Get("ETag")
		if other, twice := seen[etag]; twice || !regexp.MustCompile(`^"[\w-]{16}"$`).MatchString(etag) {
			t.Errorf("%s: ETag %s (also of %q)", p, etag, other)
		}
		seen[etag] = p
		if res := do(t, "GET", p, "If-None-Match", etag); res.Code != http.StatusNotModified || res.Header().Get("ETag") != etag {
			t.Errorf("%s: same ETag: %d", p, res.Code)
		}
		if res := do(t, "GET", p, "If-None-Match", `"another"`); res.Code != http.StatusOK {
			t.Errorf("%s: another ETag: %d", p, res.Code)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if res := do(t, method, "/"); res.Code != http.StatusMethodNotAllowed || res.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, res.Code, res.Header().Get("Allow"))
		}
	}
	for _, target := range []string{"/console", "/console/", "/console/index.html", "/web.go", "/console/../web.go", "/CONSOLE/console.js"} {
		res := do(t, "GET", target)
		if res.Code != http.StatusNotFound || res.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d, policy %q", target, res.Code, res.Header().Get("Content-Security-Policy"))
		}
	}
}

var (
	inlineScript  = regexp.MustCompile(`(?is)<script\b[^>]*>\s*\S.*?</script>`)
	inlineStyle   = regexp.MustCompile(`(?is)<style\b|\sstyle\s*=`)
	inlineHandler = regexp.MustCompile(`(?i)<[^>]+\son\w+\s*=|javascript:`)
	markupSink    = regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
	htmlReference = regexp.MustCompile(`(?:src|href|action)="([^"]*)"`)
	jsReference   = regexp.MustCompile(`(?:from|import|import\()\s*'([^']*)'`)
	cssReference  = regexp.MustCompile(`url\(\s*["']?([^"')]*)|@import\s+["']([^"']*)`)
	otherOrigin   = regexp.MustCompile(`(?i)(?:https?|wss?):?//[^\s"'` + "`" + `]*`)
)

// The patterns find what they are for, and so can fail.
func TestPatterns(t *testing.T) {
	for text, pattern := range map[string]*regexp.Regexp{
		`<script>alert(1)</script>`:         inlineScript,
		`<script type="module">x</script>`:  inlineScript,
		`<p style="color:red">`:             inlineStyle,
		`<style>p{}</style>`:                inlineStyle,
		`<p onclick="x()">`:                 inlineHandler,
		`<a href="javascript:x">`:           inlineHandler,
		`e.innerHTML = x`:                   markupSink,
		`import 'https://cdn.example/x.js'`: otherOrigin,
	} {
		if !pattern.MatchString(text) {
			t.Errorf("%v does not find %q", pattern, text)
		}
	}
}

func TestNothingInline(t *testing.T) {
	html := body(t, "/")
	for _, pattern := range []*regexp.Regexp{inlineScript, inlineStyle, inlineHandler} {
		if found := pattern.FindString(html); found != "" {
			t.Errorf("/ has %q", found)
		}
	}
	for _, p := range web.Paths() {
		if found := markupSink.FindString(body(t, p)); found != "" {
			t.Errorf("%s makes markup or code from text: %q", p, found)
		}
	}
}

func TestReferencesResolve(t *testing.T) {
	used := map[string]bool{"/": true}
	for _, p := range web.Paths() {
		text := body(t, p)
		pattern := map[string]*regexp.Regexp{"": htmlReference, ".js": jsReference, ".css": cssReference}[path.Ext(p)]
		if pattern == nil {
			continue
		}
		for _, match := range pattern.FindAllStringSubmatch(text, -1) {
			to := path.Join(path.Dir(p), strings.Join(match[1:], ""))
			if !slices.Contains(web.Paths(), to) {
				t.Errorf("%s refers to %q, which is not served", p, match[0])
			}
			used[to] = true
		}
	}
	for _, p := range web.Paths() {
		if !used[p] {
			t.Errorf("%s is served and nothing refers to it", p)
		}
	}
}

func TestNothingFromElsewhere(t *testing.T) {
	for _, p := range web.Paths() {
		for _, found := range otherOrigin.FindAllString(body(t, p), -1) {
			if found != "http://www.w3.org/2000/svg" { // a name, never fetched
				t.Errorf("%s refers to %s", p, found)
			}
		}
	}
}

// The page's list of close codes agrees with the gateway's about who may come back.
func TestCloseCodes(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^  (\d{4}): \{ reconnect: (true|false),`).FindAllStringSubmatch(body(t, "/console/connection.js"), -1)
	listed := map[wire.CloseCode]bool{}
	for _, row := range rows {
		n, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		code := wire.CloseCode(n)
		listed[code] = true
		if says := row[2] == "true"; says != code.Reconnect() {
			t.Errorf("%d: the page says reconnect %v, the gateway %v", code, says, code.Reconnect())
		}
	}
	for _, code := range []wire.CloseCode{
		wire.CloseGoingAway, wire.CloseRestart, wire.CloseTryLater, wire.CloseSlowConsumer, wire.CloseRateLimited, wire.CloseUpstreamUnavailable,
		wire.CloseUnsupported, wire.CloseInvalidUTF8, wire.CloseTooBig, wire.CloseProtocol, wire.CloseUnauthenticated, wire.CloseNotAuthorized,
	} {
		if !listed[code] {
			t.Errorf("the page does not know %d", code)
		}
	}
}
