// Command holder holds a file open or mapped and does to it what the lines of its
// input say (vmtests/holdtest).
package main

import (
	"fmt"
	"os"

	"github.com/holdfast/holdfast/vmtests/holdtest"
)

func main() {
	if err := holdtest.Run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
