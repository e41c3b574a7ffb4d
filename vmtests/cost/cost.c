/* SPDX-License-Identifier: GPL-2.0 */
/*
 * cost measures what file operations cost, in a guest whose clock counts
 * instructions (vmtests/vm, Options.Count): a nanosecond is an instruction.
 *
 *	cost names
 *	cost LABEL DIR ROUNDS [OPERATION...]
 *
 * The first prints the names of the operations. The second prints "cost LABEL
 * OPERATION NS TIMES" for each: the smallest mean of its rounds, so that what a
 * timer did in between is left out as far as it can be, and how often it was done
 * in all of them.
 * Files are named by absolute paths below DIR, as programs do. It is static and
 * allocates nothing while it measures: what it adds to each operation itself is
 * the same few instructions in every column.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MANY 512	/* names for the operations that need one each time */

static char self[PATH_MAX], file[PATH_MAX], from[PATH_MAX], to[PATH_MAX], fresh[PATH_MAX], many[MANY][PATH_MAX];
static char buf[64];
static int fd;

/* must is called with the result of every call: one that failed cost something else. */
static inline long must(long r)
{
	if (r < 0)
		err(1, "operation");
	return r;
}

static void do_getppid(long n)
{
	while (n--)
		must(syscall(SYS_getppid));
}

static void do_stat(long n)
{
	struct stat st;

	while (n--)
		must(syscall(SYS_stat, file, &st));
}

static void do_open_read(long n)
{
	while (n--) {
		int f = must(syscall(SYS_open, file, O_RDONLY));

		must(syscall(SYS_read, f, buf, sizeof(buf)));
		must(syscall(SYS_close, f));
	}
}

static void do_open_write(long n)
{
	while (n--) {
		int f = must(syscall(SYS_open, file, O_WRONLY));

		must(syscall(SYS_write, f, buf, sizeof(buf)));
		must(syscall(SYS_close, f));
	}
}

static void do_pread(long n)
{
	while (n--)
		must(syscall(SYS_pread64, fd, buf, sizeof(buf), 0));
}

static void do_pwrite(long n)
{
	while (n--)
		must(syscall(SYS_pwrite64, fd, buf, sizeof(buf), 0));
}

static void do_create_unlink(long n)
{
	while (n--) {
		must(syscall(SYS_close, must(syscall(SYS_open, fresh, O_WRONLY | O_CREAT | O_EXCL, 0644))));
		must(syscall(SYS_unlink, fresh));
	}
}

/* n is even, so that the file has its first name again afterwards. */
static void do_rename(long n)
{
	for (; n > 0; n -= 2) {
		must(syscall(SYS_rename, from, to));
		must(syscall(SYS_rename, to, from));
	}
}

static void make_many(long n)
{
	for (long i = 0; i < n; i++)
		must(close(must(open(many[i], O_WRONLY | O_CREAT | O_EXCL, 0644))));
}

static void do_unlink(long n)
{
	for (long i = 0; i < n; i++)
		must(syscall(SYS_unlink, many[i]));
}

static void do_chmod(long n)
{
	while (n--)
		must(syscall(SYS_chmod, file, n & 1 ? 0600 : 0644));
}

/* A macro: what vfork made must not return from the function that called it. */
#define DO_EXEC(name, make) \
static void name(long n) \
{ \
	while (n--) { \
		pid_t p = make(); \
		int status; \
\
		if (p == 0) { \
			execl(self, self, (char *)0); \
			_exit(127); \
		} \
		must(p); \
		must(waitpid(p, &status, 0)); \
		if (status) \
			errx(1, "exec %s: status %d", self, status); \
	} \
}
DO_EXEC(do_vfork_exec, vfork)
DO_EXEC(do_fork_exec, fork)

static const struct operation {
	const char *name;
	long loops;	/* one round is some 20 ms of the guest: five ticks of its timer */
	void (*prepare)(long), (*run)(long);
} operations[] = {
	{"getppid", 40000, 0, do_getppid},
	{"stat", 6000, 0, do_stat},
	{"open+read+close", 3000, 0, do_open_read},
	{"open+write+close", 2500, 0, do_open_write},
	{"pread", 12000, 0, do_pread},
	{"pwrite", 8000, 0, do_pwrite},
	{"create+unlink", 200, 0, do_create_unlink},
	{"rename", 200, 0, do_rename},
	{"unlink", 400, make_many, do_unlink},
	{"chmod", 2500, 0, do_chmod},
	{"vfork+exec", 40, 0, do_vfork_exec},
	{"fork+exec", 40, 0, do_fork_exec},
};

#define OPERATIONS (sizeof(operations) / sizeof(*operations))

static long long now(void)
{
	struct timespec t;

	must(clock_gettime(CLOCK_MONOTONIC_RAW, &t));
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The smallest mean over rounds, in tenths of nanoseconds. The first round warms up. */
static long long measure(const struct operation *o, int rounds)
{
	long long best = LLONG_MAX;

	for (int i = 0; i <= rounds; i++) {
		long long t;

		if (o->prepare)
			o->prepare(o->loops);
		t = now();
		o->run(o->loops);
		t = (now() - t) * 10 / o->loops;
		if (i && t < best)
			best = t;
	}
	return best;
}

static int asked(const char *name, char **names)
{
	if (!*names)
		return 1;
	for (; *names; names++)
		if (!strcmp(*names, name))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	char page[4096] = {};
	int rounds;

	if (argc < 2)
		_exit(0);	/* what vfork+exec runs */
	if (argc == 2 && !strcmp(argv[1], "names")) {
		for (unsigned i = 0; i < OPERATIONS; i++)
			puts(operations[i].name);
		return 0;
	}
	if (argc < 4)
		errx(2, "usage: cost names | cost LABEL DIR ROUNDS [OPERATION...]");
	must(readlink("/proc/self/exe", self, sizeof(self) - 1));
	snprintf(file, sizeof(file), "%s/file", argv[2]);
	snprintf(from, sizeof(from), "%s/from", argv[2]);
	snprintf(to, sizeof(to), "%s/to", argv[2]);
	snprintf(fresh, sizeof(fresh), "%s/fresh", argv[2]);
	for (int i = 0; i < MANY; i++)
		snprintf(many[i], sizeof(many[i]), "%s/many%d", argv[2], i);
	rounds = atoi(argv[3]);
	fd = must(open(file, O_RDWR | O_CREAT, 0644));
	must(write(fd, page, sizeof(page)));
	must(close(must(open(from, O_WRONLY | O_CREAT, 0644))));
	sync();	/* blocks are given to the file now, not while it is measured */

	for (unsigned i = 0; i < OPERATIONS; i++) {
		const struct operation *o = &operations[i];
		long long t;

		if (!asked(o->name, argv + 4))
			continue;
		t = measure(o, rounds);
		printf("cost %s %s %lld.%lld %ld\n", argv[1], o->name, t / 10, t % 10, o->loops * (rounds + 1));
		fflush(stdout);
	}
	unlink(file);
	unlink(from);
	return 0;
}
