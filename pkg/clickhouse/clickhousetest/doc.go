// Package clickhousetest runs the real ClickHouse engine for tests.
//
// It owns one server process per Server, its data directory and its two loopback
// ports, which stay the same over Kill and Start. The engine is libchdb.so, put to
// .cache/clickhouse by fetch.sh (make engine); where it is missing, New fails the
// test and Launch returns an error: no test is skipped for it.
//
// Tests of pkg/clickhouse, pkg/ship and of whoever asks ClickHouse call it. It does
// not offer what the engine lacks without a Keeper: Replicated tables, and users
// made by SQL (users come from Options.Users).
package clickhousetest
