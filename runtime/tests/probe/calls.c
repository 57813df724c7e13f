/* Tries what a container's root must not be able to do; prints "NAME ERRNO", 0 where it worked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static void tell(const char *name, long result)
{
	printf("%s %d\n", name, result < 0 ? errno : 0);
}

int main(void)
{
	char space[256] = { 0 };

	tell("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
	tell("kexec_file_load", syscall(SYS_kexec_file_load, 0, 0, 0, 0, 0));
	tell("init_module", syscall(SYS_init_module, space, sizeof space, ""));
	tell("finit_module", syscall(SYS_finit_module, 0, "", 0));
	tell("delete_module", syscall(SYS_delete_module, "none", 0));
	tell("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, space, 0));
	tell("bpf", syscall(SYS_bpf, 0, space, sizeof space));
	tell("perf_event_open", syscall(SYS_perf_event_open, space, 0, -1, -1, 0));
	tell("userfaultfd", syscall(SYS_userfaultfd, 0));
	tell("swapon", syscall(SYS_swapon, "/bin/busybox", 0));
	tell("swapoff", syscall(SYS_swapoff, "/bin/busybox"));
	tell("acct", syscall(SYS_acct, "/tmp/acct"));
	tell("umount_force", umount2("/proc", MNT_FORCE));
#ifdef SYS_iopl
	tell("iopl", syscall(SYS_iopl, 3));
	tell("ioperm", syscall(SYS_ioperm, 0, 1, 1));
#endif
	tell("settimeofday", syscall(SYS_settimeofday, &(long[2]){ 0, 0 }, 0));
	/* Types for whoever has the terminal on standard input, if it is one. */
	for (const char *key = "echo injected\n"; *key; key++)
		if (ioctl(0, TIOCSTI, key) < 0)
			break;
	return 0;
}
