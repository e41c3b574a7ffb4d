// Command chserver serves ClickHouse on loopback out of libchdb.so, for tests.
//
//	chserver -lib FILE -dir DIR -tcp PORT -http PORT [-config FILE]
//
// The library's command line is that of clickhouse-local, which can listen since
// 26.7: a query starts the two listeners and a last query reads standard input,
// so the server lives exactly as long as its parent keeps the pipe open. It needs
// no cgo and leaves no orphan. It does not daemonize, has no TLS of its own and
// no Keeper: tables of the Replicated family cannot be made.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"github.com/ebitengine/purego"
)

const serve = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; " +
	"SELECT count() FROM file('-', 'LineAsString', 'line String') FORMAT Null"

func main() {
	lib := flag.String("lib", os.Getenv("LIBCHDB"), "the engine, libchdb.so")
	dir := flag.String("dir", "", "data directory")
	tcp := flag.Int("tcp", 0, "port of the native protocol")
	http := flag.Int("http", 0, "port of HTTP")
	config := flag.String("config", "", "server configuration (users, profiles)")
	flag.Parse()
	if *lib == "" || *dir == "" || *tcp == 0 || *http == 0 {
		flag.Usage()
		os.Exit(2)
	}
	args := []string{"clickhouse", "--path", *dir, "--listen_host", "127.0.0.1",
		"--tcp_port", strconv.Itoa(*tcp), "--http_port", strconv.Itoa(*http),
		"--logger.console", "--log-level", "warning"}
	if *config != "" {
		args = append(args, "--config-file", *config)
	}
	if err := run(*lib, append(args, "--query", serve)); err != nil {
		fmt.Fprintln(os.Stderr, "chserver:", err)
		os.Exit(1)
	}
}

// run calls the engine's command line with args and returns when it is over.
func run(lib string, args []string) error {
	// The engine sets thread-local state on the thread that calls it.
	runtime.LockOSThread()
	h, err := purego.Dlopen(lib, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return fmt.Errorf("load engine: %w", err)
	}
	var (
		setSignalHandlers func(int32)
		queryCmdline      func(int32, unsafe.Pointer) unsafe.Pointer
		resultError       func(unsafe.Pointer) string
	)
	purego.RegisterLibFunc(&setSignalHandlers, h, "chdb_set_signal_handlers_enabled")
	purego.RegisterLibFunc(&queryCmdline, h, "chdb_query_cmdline")
	purego.RegisterLibFunc(&resultError, h, "chdb_result_error")
	setSignalHandlers(0) // Go's runtime keeps its own

	argv := make([]*byte, len(args)+1) // C argv: NUL-terminated strings and a last NULL
	for i, a := range args {
		argv[i] = &append([]byte(a), 0)[0]
	}
	res := queryCmdline(int32(len(args)), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if e := resultError(res); e != "" {
		return fmt.Errorf("engine: %s", e)
	}
	return nil
}
