// Package fleettest makes up the history of a fleet: hosts, people, deployments,
// package upgrades, scheduled jobs, losses, restores, and a few attacks. The records
// have the shape of the daemon's, in the order of each host's log.
//
// The same Options give the same records, on every machine. Hosts are made one by
// one and independently, in constant memory, so that a history may be as long as
// wanted. Names, addresses and hosts are of the ranges reserved for documentation.
//
// Tests of whoever answers questions call it, and vmtests/cmd/fleet, which writes a
// history to ClickHouse or as lines of JSON. It does not promise that a history tells
// anything about how often such things happen.
package fleettest
