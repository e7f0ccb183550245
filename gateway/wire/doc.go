// Package wire holds every shape the outside world sees: the message object, the
// control events, problems, close codes. Its golden files are the contract; a
// change here is a change to what third parties depend on.
package wire
