// Package vm boots a stock distribution kernel under QEMU, runs one shell script
// as root in it and brings back what it printed, how it ended and the files it
// left in /out.
//
// It owns everything it needs below one cache directory: unpacked kernel
// packages and the initramfs made of each (kernels/), and the root file system
// image (rootfs-*.img). Both are made on first use, under a lock, and a machine
// without network can go on using them.
//
// The machine is emulated (TCG): results do not depend on the host's kernel or
// on /dev/kvm, and timing inside means nothing unless Options.Count makes the
// clock count instructions. Each run starts from the same root file system; what
// it writes is thrown away, except /out.
//
//	host                                guest
//	rootfs-*.img (snapshot)  --serial root-->  /          ext4, read and write
//	tar of Options.Files     --serial in---->  unpacked over / before the script
//	sparse raw disk          <--serial out---  tar of /out after the script
//	serial line              <---------------  what the script printed
//
// Callers are vmtests' own Go test and cmd/vm. The package does not interpret
// what a script did: expectations live with the scripts.
package vm
