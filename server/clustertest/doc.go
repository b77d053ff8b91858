// Package clustertest runs whole clusters of gateways against real Redis and
// NATS servers, in this process or as processes of the daisi-ws binary, and
// breaks them: kill, stop, cut. Every end-to-end test of the project uses it.
//
// A Cluster belongs to one test and ends with it. Expected values never come
// from a gateway: clients note what they read, the test knows what it sent.
package clustertest
