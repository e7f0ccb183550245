// Package blackbox holds no code of its own: its tests build the program with
// the race detector, start it in front of its embedded broker and of a real
// Mosquitto, and drive it from outside with clients that nobody here wrote:
// curl, mosquitto_pub and mosquitto_sub, npm's mqtt, ws and eventsource, and
// Chromium. Tokens are signed by npm's jose. Every HTTP answer that the tests
// see is held against openapi.yaml (contract_test.go), and after a full run every
// operation and status of that document must have been seen.
//
// The clients and programs come with "make install". A missing one fails the
// tests; none is skipped.
package blackbox
