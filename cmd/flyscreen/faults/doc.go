// Package faults breaks things around the built program and judges from outside
// what it promised: brokers and gateways killed at any moment, links that are half
// open, slow or cut into pieces, brokers that misbehave, disks that are full. All of
// it is on loopback and bounded.
//
// go test runs a short form. make faults runs it at length (FAULTS_RUN=full)
// and prints the figures.
package faults
