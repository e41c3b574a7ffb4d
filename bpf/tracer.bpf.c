//go:build ignore

// SPDX-License-Identifier: GPL-2.0
/*
 * The product object: a table of contents. Both tiers share every inline
 * function; user space drops the programs of the tier that it does not use
 * before it loads.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "compat.h"
#include "maps.h"
#include "emit.h"
#include "path.h"
#include "actor.h"
#include "rules.h"
#include "hooks/file.h"
#include "hooks/fold.h"
#include "hooks/cred.h"
#include "hooks/process.h"
#include "hooks/device.h"
#include "hooks/held.h"
#include "hooks/ioctl.h"
#include "hooks/calls.h"
#include "hooks/passed.h"
#include "hooks/syscall.h"
#include "hooks/ring.h"
#include "hooks/lsm.h"
#include "hooks/names.h"
#include "hooks/mount.h"
#include "hooks/mapping.h"
#include "hooks/guard.h"

char LICENSE[] SEC("license") = "GPL";

/* keeps the wire types in the object's BTF, for the generated Go types */
const struct event_head *unused_head __attribute__((unused));
const struct file_body *unused_file __attribute__((unused));
const struct peer_body *unused_peer __attribute__((unused));
const struct cred_body *unused_cred __attribute__((unused));
const struct inode_row *unused_row __attribute__((unused));
