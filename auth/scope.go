package auth

import (
	"fmt"
	"net/url"
	"strings"
)

// scope reads grants from the scope claim (RFC 8693 section 4.2): words such as
// mqtt:pub:pets/1/commands/%23. A word cannot hold a space, so filters are
// percent-encoded where they need it. Words of others do not matter here.
func (r *grantReader) scope() error {
	v, present := r.claims["scope"]
	if !present {
		return nil
	}
	words, ok := stringList(v) // some issuers write an array
	if one, isString := v.(string); isString {
		words, ok = strings.Split(one, " "), true // RFC 6749 section 3.3: space-delimited
	}
	if !ok {
		return invalid(`the member "scope" is neither a string nor an array of strings`)
	}
	for i, word := range words {
		rest, ours := strings.CutPrefix(word, "mqtt:")
		if !ours {
			continue
		}
		kind, encoded, _ := strings.Cut(rest, ":")
		if kind != "pub" && kind != "sub" {
			return invalid(`the word scope[%d] is neither mqtt:pub:<filter> nor mqtt:sub:<filter>`, i)
		}
		template, err := url.PathUnescape(encoded) // "+" stays the wildcard
		if err != nil {
			return invalid(`the word scope[%d] holds a "%%" that begins no escape`, i)
		}
		if err := r.add(fmt.Sprintf("scope[%d]", i), template, kind == "pub", kind == "sub"); err != nil {
			return err
		}
	}
	return nil
}

// details reads grants from authorization_details (RFC 9396): objects of the type
// mqtt with actions and topics. Objects of other types do not matter here.
func (r *grantReader) details() error {
	v, present := r.claims["authorization_details"]
	if !present {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		return invalid(`the member "authorization_details" is not an array`)
	}
	for i, v := range list {
		detail, ok := v.(map[string]any)
		if !ok {
			return invalid(`the member "authorization_details" holds something that is not an object`)
		}
		kind, ok := detail["type"].(string)
		if !ok { // RFC 9396 section 2: "This field is REQUIRED."
			return invalid(`the object authorization_details[%d] has no "type"`, i)
		}
		if kind != "mqtt" {
			continue
		}
		if err := r.detail(fmt.Sprintf("authorization_details[%d]", i), detail); err != nil {
			return err
		}
	}
	return nil
}

func (r *grantReader) detail(where string, detail map[string]any) error {
	for name := range detail {
		switch name {
		case "type", "actions", "topics":
		default:
			// Section 5: the authorization server must refuse "unknown fields"; a rule
			// that is not understood may be one that narrows.
			return invalid(`the object %s may only hold "type", "actions" and "topics"`, where)
		}
	}
	actions, ok := stringList(detail["actions"])
	if !ok || len(actions) == 0 {
		return invalid(`the member "%s.actions" is not an array of strings with something in it`, where)
	}
	var pub, sub bool
	for _, action := range actions {
		switch action {
		case "publish":
			pub = true
		case "subscribe":
			sub = true
		default:
			return invalid(`the member "%s.actions" may only hold "publish" and "subscribe"`, where)
		}
	}
	topics, ok := stringList(detail["topics"])
	if !ok || len(topics) == 0 {
		return invalid(`the member "%s.topics" is not an array of strings with something in it`, where)
	}
	for n, template := range topics {
		if err := r.add(fmt.Sprintf("%s.topics[%d]", where, n), template, pub, sub); err != nil {
			return err
		}
	}
	return nil
}
