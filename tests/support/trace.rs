//! Runs a process that has itself traced, and disturbs one of its system calls that write.

use std::collections::BTreeMap;
use std::process::{Child, Command};

use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it.
    Kill,
    /// It fails for lack of space.
    NoSpace,
    /// It fails with an I/O error.
    Broken,
    /// Half of what it was to write is written.
    Short,
}

/// How it went.
#[derive(Debug)]
pub struct Run {
    /// Calls that write.
    pub calls: usize,
    /// The exit status; none when it was killed.
    pub code: Option<i32>,
}

/// Starts `command`, which asks to be traced and stops itself, and runs it to its end. The call with
/// number `at` of those that write meets the fault.
pub fn trace(command: &mut Command, fault: Option<(Fault, usize)>) -> Run {
    let mut child = Guard(command.spawn().unwrap());
    let main = Pid::from_raw(child.0.id() as i32);
    let mut calls = 0;
    let mut failing: BTreeMap<Pid, i32> = BTreeMap::new();
    let mut code = None;
    let mut traced = false;
    // Only children of this thread: other tests have theirs.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        match status {
            WaitStatus::Stopped(pid, Signal::SIGSTOP) => {
                // The first is the thread that asked; those it starts follow it.
                if !std::mem::replace(&mut traced, true) {
                    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
                    ptrace::setoptions(pid, options | Options::PTRACE_O_EXITKILL).unwrap();
                }
                resume(pid, None);
            }
            WaitStatus::PtraceSyscall(pid) => {
                let Ok(info) = ptrace::syscall_info(pid) else { continue };
                if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
                    if let Some(errno) = failing.remove(&pid) {
                        let mut registers = ptrace::getregs(pid).unwrap();
                        registers.rax = -i64::from(errno) as u64;
                        ptrace::setregs(pid, registers).unwrap();
                    }
                } else if let Ok(registers) = ptrace::getregs(pid)
                    && writes(pid, &registers)
                {
                    let hit = fault.filter(|(_, at)| *at == calls).map(|(fault, _)| fault);
                    calls += 1;
                    if hit == Some(Fault::Kill) {
                        child.0.kill().unwrap();
                    } else if let Some(errno) = hit.and_then(|fault| disturb(pid, registers, fault)) {
                        failing.insert(pid, errno);
                    }
                }
                resume(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => resume(pid, Some(signal)),
            WaitStatus::PtraceEvent(pid, ..) => resume(pid, None),
            WaitStatus::Exited(pid, status) if pid == main => {
                code = Some(status);
                break;
            }
            WaitStatus::Signaled(pid, ..) if pid == main => break,
            _ => {}
        }
    }
    Run { calls, code }
}

/// A thread that was killed meanwhile needs no resuming.
fn resume(pid: Pid, signal: Option<Signal>) {
    let _ = ptrace::syscall(pid, signal);
}

/// Makes the call fail or write less; the error it is to return.
fn disturb(pid: Pid, mut registers: libc::user_regs_struct, fault: Fault) -> Option<i32> {
    let errno = match fault {
        Fault::Kill => return None,
        Fault::NoSpace => libc::ENOSPC,
        Fault::Broken => libc::EIO,
        Fault::Short => {
            let length = match registers.orig_rax as c_long {
                libc::SYS_write | libc::SYS_pwrite64 => &mut registers.rdx,
                libc::SYS_copy_file_range => &mut registers.r8,
                libc::SYS_sendfile => &mut registers.r10,
                _ => return None,
            };
            *length = length.div_ceil(2);
            ptrace::setregs(pid, registers).unwrap();
            return None;
        }
    };
    registers.orig_rax = u64::MAX; // No call at all.
    ptrace::setregs(pid, registers).unwrap();
    Some(errno)
}

/// Whether a call changes files.
fn writes(pid: Pid, registers: &libc::user_regs_struct) -> bool {
    match registers.orig_rax as c_long {
        // Not what it says to its caller, to a server or to itself.
        libc::SYS_write | libc::SYS_writev => {
            let file = std::fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi));
            registers.rdi > 2 && file.is_ok_and(|file| file.starts_with("/"))
        }
        libc::SYS_open => registers.rsi & libc::O_CREAT as u64 != 0,
        libc::SYS_openat => registers.rdx & libc::O_CREAT as u64 != 0,
        libc::SYS_ioctl => registers.rsi == libc::FICLONE,
        libc::SYS_pwrite64
        | libc::SYS_sendfile
        | libc::SYS_copy_file_range
        | libc::SYS_ftruncate
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_rmdir
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_symlink
        | libc::SYS_symlinkat
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_chmod
        | libc::SYS_fchmod
        | libc::SYS_fchmodat
        | libc::SYS_utimensat => true,
        _ => false,
    }
}

/// Ends the process whatever happens to its test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
