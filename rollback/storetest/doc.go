// Package storetest helps to test the vault: it makes disks fail and processes
// die at a chosen step, and it asks other programs what is really on disk.
//
// It promises that Truth and Tree use nothing of Holdfast: they run stat, b3sum,
// getfattr, getfacl, getcap, lsattr and readlink, which must be installed. Only
// tests import it. It does not simulate what a power cut does to a disk's cache;
// Faults.Steps lets a test check the order in which things were made durable.
package storetest
