package fault

import (
	"regexp"
	"strings"
)

// mask stands where a credential stood.
const mask = "***"

// hints are what every credential of credentials below holds: where none of them
// is, nothing needs to be looked for. The first are how base64 spells the beginning
// of a JSON object, once and twice.
var hints = []string{"eyJ", "eyA", "ewo", "ewk", "ew0", "ZXlK", "fsk_", "fst_"}

// credentials are tokens (also cut short, or encoded once more as for a WebSocket
// subprotocol), API keys and tickets.
var credentials = regexp.MustCompile(`(eyJ|eyA|ewo|ewk|ew0)[A-Za-z0-9_-]{5,}(\.[A-Za-z0-9_=-]*)+` +
	`|eyJ[A-Za-z0-9_-]{17,}` +
	`|ZXlK[A-Za-z0-9_=-]{17,}` +
	`|fsk_[a-z0-9]{4,}_[A-Za-z0-9]+|fst_[A-Za-z0-9]{8,}`)

// Redact replaces whatever looks like a credential by ***. People put tokens into
// topics, paths and names; what is told or logged of those must not give them away.
func Redact(s string) string {
	for _, hint := range hints {
		if strings.Contains(s, hint) {
			return credentials.ReplaceAllString(s, mask)
		}
	}
	return s
}
