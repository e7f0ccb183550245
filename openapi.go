// Package flyscreen holds the machine-readable description of the HTTP API, so
// that the gateway can serve exactly the file that the tests hold it to. The
// program itself is in cmd/flyscreen.
package flyscreen

import _ "embed" // for the go:embed line below

// OpenAPI is the OpenAPI 3.1 document of the HTTP API, as YAML. It is served at
// /openapi.yaml; nobody may change it.
//
//go:embed openapi.yaml
var OpenAPI []byte
