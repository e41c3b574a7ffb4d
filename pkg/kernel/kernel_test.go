package kernel_test

import (
	"errors"
	"testing"

	"github.com/holdfast/holdfast/pkg/kernel"
)

// The truth is the kernel's own: a capability that is found has fired a program
// in this process.
func TestProbe(t *testing.T) {
	r := kernel.Probe(t.Context())
	if r.Tier == "" {
		t.Errorf("no tier works on %s", r.Release)
	}
	found := make(map[string]bool)
	for _, c := range r.Capabilities {
		found[c.Name] = c.Found
		t.Logf("%-16s %-5v %v", c.Name, c.Found, c.Err)
		if c.Found != (c.Err == nil) {
			t.Errorf("%s: found %v with error %v", c.Name, c.Found, c.Err)
		}
		if !c.Found && !errors.Is(c.Err, kernel.ErrNotSupported) {
			t.Errorf("%s: cannot be told as root: %v", c.Name, c.Err)
		}
		if c.Cost == "" {
			t.Errorf("%s: does not say what it costs to lack it", c.Name)
		}
	}
	if want := found["lsm_programs"] && found["trampolines"] && found["lsm_listed"]; (r.Tier == "lsm") != want {
		t.Errorf("tier %q with lsm_listed %v, lsm_programs %v, trampolines %v", r.Tier, found["lsm_listed"], found["lsm_programs"], found["trampolines"])
	}
}
