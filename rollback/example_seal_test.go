package rollback_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/rollback"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// Contents are sealed by the keys that a Sealer has, and are read by who has these
// keys. storetest.Keys is for tests alone: a program brings its own Sealer.
func ExampleSealer() {
	dir, err := os.MkdirTemp("", "holdfast-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	vault, file := filepath.Join(dir, "vault"), filepath.Join(dir, "token")
	open := func(keys rollback.Sealer) (*rollback.Store, error) {
		return rollback.Open(vault, rollback.Options{Sealer: keys})
	}

	put(file, "token: 8f14e45f\n")
	v, err := open(storetest.NewKeys("a word"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := v.Capture(context.Background(), file, rollback.Provenance{Trust: true}); err != nil {
		log.Fatal(err)
	}
	if err := v.Close(); err != nil {
		log.Fatal(err)
	}

	var found int
	err = filepath.WalkDir(vault, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("8f14e45f")) {
			found++
		}
		return err
	})
	fmt.Println("files of the vault that have the token in the clear:", found, err)

	_, err = open(nil)
	fmt.Println("without the key:", errors.Is(err, rollback.ErrSealed))
	_, err = open(storetest.NewKeys("another word"))
	fmt.Println("with another key:", errors.Is(err, rollback.ErrSealed))

	if v, err = open(storetest.NewKeys("a word")); err != nil {
		log.Fatal(err)
	}
	defer v.Close()
	put(file, "something else\n")
	trusted, _ := v.Trusted(file)
	r, err := v.RestorePath(context.Background(), file, trusted)
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(file)
	fmt.Print("with the key: ", r.Outcome, ", ", string(text))
	fmt.Println(err)
	// Output:
	// files of the vault that have the token in the clear: 0 <nil>
	// without the key: true
	// with another key: true
	// with the key: done, token: 8f14e45f
	// <nil>
}
