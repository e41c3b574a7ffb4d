/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tier tracepoint: requests of io_uring, which no system call names.
 *
 * io_uring_complete		a request is done
 * io_uring_submit_{req,sqe}	it was taken from the ring: for those that ask for no answer
 *
 * Nothing is sent: those that may change a watched file are counted as not placed, and
 * user space compares the watched trees on account of that.
 */
#ifndef HOLDFAST_RING_H
#define HOLDFAST_RING_H

/* enum io_uring_op (linux include/uapi/linux/io_uring.h) */
#define RING_LAST 63	/* in linux v6.18; what comes after it may do anything */
#define RING_SILENT (1 << 6)	/* IOSQE_CQE_SKIP_SUCCESS, as the request has it too */
#define BIT(n) (1ULL << (n))
#define RING_WRITES (BIT(2) | BIT(5) | BIT(17) | BIT(23) | BIT(30) | BIT(41) | BIT(55) | BIT(59) | BIT(61))	/* to a file that is open */
#define RING_NAMES (BIT(18) | BIT(28) | BIT(35) | BIT(36) | BIT(37) | BIT(38) | BIT(39) | BIT(42))	/* openat, openat2, renameat, unlinkat, mkdirat, symlinkat, linkat, setxattr */

/* May the request have changed a file below a rule? f is the file that it is about, 0 if that is not known. */
static __always_inline void on_ring(u64 op, u64 f)
{
	struct settings *c = settings();
	u64 sb;

	if (!c || !c->armed)
		return;
	if (op <= RING_LAST && !(BIT(op) & (RING_WRITES | RING_NAMES)))
		return;
	COUNT(HOOK_IO_URING, seen);
	if (f && op <= RING_LAST && (BIT(op) & RING_WRITES)) {
		sb = (u64)BPF_CORE_READ((struct file *)f, f_inode, i_sb);
		if (!bpf_map_lookup_elem(&filesystems, &sb)) {
			COUNT(HOOK_IO_URING, skipped);
			return;
		}
	}
	COUNT(HOOK_IO_URING, deep);
}

/* It was taken from a ring and will give no answer: it is counted before it is done. */
static __always_inline void on_silent(struct io_kiocb *req)
{
	if (requests_are_told() && (BPF_CORE_READ(req, flags) & RING_SILENT))
		on_ring(BPF_CORE_READ(req, opcode), 0);
}

SEC("tp_btf/io_uring_submit_req")
int ring_req(u64 *ctx)
{
	on_silent((void *)ctx[0]);
	return 0;
}

SEC("tp_btf/io_uring_submit_sqe")
int ring_sqe(u64 *ctx)
{
	on_silent((void *)ctx[0]);
	return 0;
}

SEC("tp_btf/io_uring_complete")
int ring_done(u64 *ctx)
{
	struct io_kiocb *req = (void *)ctx[1];

	if (!requests_are_told())
		on_ring(RING_LAST + 1, 0);
	else if (req)	/* else a further answer of one that goes on, as to receive */
		on_ring(BPF_CORE_READ(req, opcode), (u64)BPF_CORE_READ(req, file));
	return 0;
}

#endif
