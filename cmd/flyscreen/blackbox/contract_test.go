package blackbox_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/content"
	verrors "github.com/pb33f/libopenapi-validator/errors"
	"github.com/pb33f/libopenapi-validator/schema_validation"
	"github.com/pb33f/libopenapi/datamodel/high/base"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"flyscreen"
)

// document is openapi.yaml, and what the tests have seen of it. Every exchange
// goes through check: an answer must be one that the document describes, and a
// request that the gateway took must be one that the document allows.
type document struct {
	model   *v3.Document
	strict  validator.Validator // a member that the document does not name is a fault of one of the two
	lenient validator.Validator // for payloads, which are anybody's JSON
	schemas schema_validation.SchemaValidator

	mu   sync.Mutex // guards validating, as the library promises no parallel use, and seen
	seen map[string]bool
}

func loadDocument() (*document, error) {
	parsed, err := libopenapi.NewDocument(flyscreen.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	model, err := parsed.BuildV3Model()
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	d := &document{
		model: &model.Model, seen: map[string]bool{},
		schemas: schema_validation.NewSchemaValidator(config.WithFormatAssertions()),
	}
	options := []config.Option{config.WithFormatAssertions(), config.WithBodyDecoder("application/x-ndjson", content.DecoderFunc(asText))}
	strict := append(options, config.WithStrictMode(), config.WithStrictIgnorePaths("$.body.messages[*].payload.**"),
		// What browsers are told of every answer is described in words.
		config.WithStrictIgnoredHeadersExtra("Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "X-Content-Type-Options",
			"X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Accept-Ranges",
			"Content-Security-Policy", "Allow", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key", "Sec-WebSocket-Accept"))
	var errs1, errs2 []error
	d.strict, errs1 = validator.NewValidator(parsed, strict...)
	d.lenient, errs2 = validator.NewValidator(parsed, options...)
	if err := errors.Join(append(errs1, errs2...)...); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	if ok, faults := d.strict.ValidateDocument(); !ok {
		return nil, fmt.Errorf("openapi.yaml: %s", explain(faults))
	}
	return d, nil
}

// asText reads a body whose schema is a string.
func asText(in *content.DecodeInput) (any, error) {
	b, err := io.ReadAll(in.Body)
	return string(b), err
}

// client is an HTTP client whose exchanges are all checked. It follows no
// redirects: the gateway sends none.
func (d *document) client(t *testing.T) *http.Client {
	return &http.Client{
		Transport:     checked{t, d},
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// checked is the transport of client.
type checked struct {
	t *testing.T
	d *document
}

func (c checked) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if !endless(r, res) {
		answer, err := io.ReadAll(res.Body)
		_ = res.Body.Close() // all of it was read
		if err != nil {
			return nil, err
		}
		res.Body = io.NopCloser(bytes.NewReader(answer))
	}
	c.d.check(c.t, r, body, res)
	return res, nil
}

// endless reports an answer whose body is a live stream or a WebSocket.
func endless(r *http.Request, res *http.Response) bool {
	return r.URL.Path == "/v1/stream" && res.StatusCode == http.StatusOK || res.StatusCode == http.StatusSwitchingProtocols
}

// check holds one exchange against the document. The body of res can be read
// again afterwards.
func (d *document) check(t *testing.T, r *http.Request, body []byte, res *http.Response) {
	t.Helper()
	path, operation := d.operation(r)
	if operation == nil {
		if res.StatusCode < 400 {
			t.Errorf("%s %s answered %d, but openapi.yaml has no such operation", r.Method, r.URL.Path, res.StatusCode)
		}
		return
	}
	asked, answered := plain(r, path, body), *res
	answered.Body = io.NopCloser(strings.NewReader("\n")) // of a stream only the head is looked at here
	var answer []byte
	if !endless(r, res) {
		var err error
		if answer, err = io.ReadAll(res.Body); err != nil {
			t.Errorf("%s %s: reading the answer: %v", r.Method, r.URL.Path, err)
		}
		res.Body = io.NopCloser(bytes.NewReader(answer))
		answered.Body = io.NopCloser(bytes.NewReader(answer))
	}
	v := d.strict
	if strings.Contains(path, "{topic}") && res.StatusCode == http.StatusOK {
		v = d.lenient
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[r.Method+" "+path+" "+strconv.Itoa(res.StatusCode)] = true
	if res.StatusCode < 400 {
		if ok, faults := v.ValidateHttpRequestSync(asked); !ok {
			t.Errorf("%s %s was taken, but openapi.yaml forbids it:\n%s", r.Method, r.URL.RequestURI(), explain(faults))
		}
		asked.Body = io.NopCloser(bytes.NewReader(body))
	}
	if ok, faults := v.ValidateHttpResponse(asked, &answered); !ok {
		t.Errorf("%s %s: the answer %d is not as openapi.yaml has it:\n%s\n%s", r.Method, r.URL.RequestURI(), res.StatusCode,
			explain(faults), short(answer))
	}
}

// operation finds the path template and the operation of a request.
func (d *document) operation(r *http.Request) (string, *v3.Operation) {
	path := r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "/v1/topics/"):
		path = "/v1/topics/{topic}"
	case strings.HasPrefix(path, "/v1/stream/") && strings.HasSuffix(path, "/token"):
		path = "/v1/stream/{stream}/token"
	case strings.HasPrefix(path, "/v1/stream/"):
		path = "/v1/stream/{stream}"
	case strings.HasPrefix(path, "/console/"):
		path = "/console/{file}"
	case strings.HasPrefix(path, "/v1/outbox/"):
		_, action, more := strings.Cut(strings.TrimPrefix(path, "/v1/outbox/"), "/")
		if path = "/v1/outbox/{id}"; more {
			path += "/" + action
		}
	}
	item := d.model.Paths.PathItems.GetOrZero(path)
	if item == nil {
		return path, nil
	}
	return path, item.GetOperations().GetOrZero(strings.ToLower(r.Method))
}

// plain is r as the validator can route it: templates have no slashes in a
// value, but topics do.
func plain(r *http.Request, path string, body []byte) *http.Request {
	c := r.Clone(r.Context())
	c.Body = io.NopCloser(bytes.NewReader(body))
	if strings.Contains(path, "{topic}") {
		c.URL.Path, c.URL.RawPath = strings.Replace(path, "{topic}", "topic", 1), ""
		if c.Header.Get("Content-Type") == "" && r.Method != http.MethodDelete {
			c.Header.Set("Content-Type", "application/octet-stream") // no type at all is any type
		}
	}
	return c
}

// unseen lists the operations and answers of the document that no check saw.
// Failures of the gateway or the broker (5xx) need not be seen.
func (d *document) unseen() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var missing []string
	for path, item := range d.model.Paths.PathItems.FromOldest() {
		for method, operation := range item.GetOperations().FromOldest() {
			for status := range operation.Responses.Codes.FromOldest() {
				name := strings.ToUpper(method) + " " + path + " " + status
				if status < "500" && !d.seen[name] {
					missing = append(missing, name)
				}
			}
		}
	}
	return missing
}

// object holds one JSON text against a schema of the document that is a choice of
// shapes by type. Members that its shape does not name are faults too.
func (d *document) object(t *testing.T, choice, text string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	schema := d.schema(t, choice)
	if ok, faults := d.schemas.ValidateSchemaString(schema, text); !ok {
		t.Errorf("not a %s as openapi.yaml has it:\n%s\n%s", choice, explain(faults), short([]byte(text)))
		return
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		t.Fatal(err)
	}
	for _, shape := range schema.OneOf {
		properties := shape.Schema().Properties
		if kind := properties.GetOrZero("type"); strconv.Quote(kind.Schema().Const.Value) != string(members["type"]) {
			continue
		}
		for name := range members {
			if properties.GetOrZero(name) == nil {
				t.Errorf("openapi.yaml knows no member %q of this %s: %s", name, choice, short([]byte(text)))
			}
		}
	}
}

func (d *document) schema(t *testing.T, name string) *base.Schema {
	t.Helper()
	proxy := d.model.Components.Schemas.GetOrZero(name)
	if proxy == nil {
		t.Fatalf("openapi.yaml has no schema %s", name)
	}
	return proxy.Schema()
}

// explain spells the validator's complaints, one a line.
func explain(faults []*verrors.ValidationError) string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "    %s: %s\n", f.Message, f.Reason)
		for _, s := range f.SchemaValidationErrors {
			fmt.Fprintf(&b, "        %s: %s\n", s.FieldPath, s.Reason)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

// short is the beginning of a body, for messages.
func short(b []byte) string {
	if len(b) > 600 {
		return string(b[:600]) + "…"
	}
	return string(b)
}
