package api

import (
	"net/http"
	"net/url"
	"strings"

	"flyscreen/gateway/fault"
)

// TopicsPrefix is the path behind which the topic stands.
const TopicsPrefix = "/v1/topics/"

// topicName cuts the topic out of the path: everything behind the prefix,
// percent-decoded exactly once. The router's own parameter is no help: it is
// decoded or not depending on how the path is spelled.
func topicName(r *http.Request) (string, error) {
	escaped, found := strings.CutPrefix(r.URL.EscapedPath(), TopicsPrefix)
	if !found {
		return "", fault.New(fault.NotFound, "there is nothing at this path")
	}
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return "", fault.New(fault.InvalidTopic, "the topic is not percent-encoded correctly")
	}
	return name, nil
}
