package rollback_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast/holdfast/rollback"
)

// place makes a vault and a file for an example.
func place() (vault *rollback.Store, file string, done func()) {
	dir, err := os.MkdirTemp("", "holdfast-example-")
	if err != nil {
		log.Fatal(err)
	}
	vault, err = rollback.Open(filepath.Join(dir, "vault"), rollback.Options{})
	if err != nil {
		log.Fatal(err)
	}
	return vault, filepath.Join(dir, "greeting"), func() {
		if err := vault.Close(); err != nil {
			log.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Fatal(err)
		}
	}
}

func put(file, text string) {
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		log.Fatal(err)
	}
}

// A file is kept, damaged, and put back.
func Example() {
	vault, file, done := place()
	defer done()
	ctx := context.Background()

	put(file, "good morning\n")
	v, err := vault.Capture(ctx, file, rollback.Provenance{Reason: "as installed", Trust: true})
	if err != nil {
		log.Fatal(err)
	}
	if err := vault.Sync(); err != nil { // durable from here on
		log.Fatal(err)
	}
	put(file, "something else\n")

	r, err := vault.RestorePath(ctx, file, v)
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(file)
	fmt.Println(r.Outcome, err)
	fmt.Print(string(text))
	// Output:
	// done <nil>
	// good morning
}

// A plan says what would be done, and carries it out if that is wanted.
func ExampleStore_PlanRestore() {
	vault, file, done := place()
	defer done()
	ctx := context.Background()

	put(file, "good morning\n")
	if _, err := vault.Capture(ctx, file, rollback.Provenance{Trust: true}); err != nil {
		log.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		log.Fatal(err)
	}
	plan, err := vault.PlanRestore(ctx, []string{filepath.Dir(file)}, rollback.RestoreOptions{Recursive: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range plan.Steps {
		fmt.Println(s.Action, filepath.Base(s.Path), "from version", s.Version)
	}
	if err := vault.Apply(ctx, plan, nil); err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(file)
	fmt.Print(string(text))
	fmt.Println(err)
	// Output:
	// write greeting from version 1
	// good morning
	// <nil>
}

// Old versions go when no rule keeps them: here all but the newest one and the
// trusted one, once they were replaced more than a day ago.
func ExampleStore_Prune() {
	dir, err := os.MkdirTemp("", "holdfast-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	vault, err := rollback.Open(filepath.Join(dir, "vault"), rollback.Options{Now: func() time.Time { return now }})
	if err != nil {
		log.Fatal(err)
	}
	defer vault.Close()
	file := filepath.Join(dir, "greeting")
	for day := range 5 {
		put(file, fmt.Sprintln("good morning, day", day))
		if _, err := vault.Capture(context.Background(), file, rollback.Provenance{Trust: day == 1}); err != nil {
			log.Fatal(err)
		}
		now = now.AddDate(0, 0, 1)
	}
	now = now.AddDate(0, 0, 7)
	gone, err := vault.Prune(context.Background(), rollback.Keep{Versions: 1, Age: 24 * time.Hour}, rollback.Provenance{Reason: "too old"},
		func(vs []rollback.Version) error { // a record of it, before it happens
			for _, v := range vs {
				fmt.Println("version", v.ID, "is about to go")
			}
			return nil
		})
	fmt.Println(gone.Versions, "gone,", len(vault.Versions(file)), "left:", err)
	// Output:
	// version 1 is about to go
	// version 3 is about to go
	// version 4 is about to go
	// 3 gone, 2 left: <nil>
}
