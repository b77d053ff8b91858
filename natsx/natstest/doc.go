// Package natstest gives tests real NATS servers with JetStream: one inside
// the test process (Start), or a nats-server process built from the module,
// which can be killed, stopped and started again (StartProcess). Everything
// listens on 127.0.0.1 with a free port, keeps its store in the test's own
// directory and ends with the test.
package natstest
