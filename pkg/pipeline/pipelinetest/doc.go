// Package pipelinetest drives a pipeline in tests: a journal in memory, a clock, a
// vault over a real rollback.Store, and a Scene whose actors change real files and
// tell of it as the kernel side would.
//
// Called by tests only.
package pipelinetest
