//! System calls containers do not get.
//!
//! Most of these are refused by the kernel in a user namespace already; the filter takes the code
//! behind them out of reach. Everything else passes: a system container runs a whole distribution,
//! also 32-bit programs of it.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, EPERM,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, sock_filter,
};

/// Offsets in the kernel's `struct seccomp_data`; low half of the second argument on little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const SECOND_ARGUMENT: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };

/// One way of calling the kernel.
struct Abi {
    /// `AUDIT_ARCH_…` of `linux/audit.h`.
    audit: u32,
    /// Calls refused with EPERM.
    denied: &'static [u32],
    /// `umount2`, refused with `MNT_FORCE` only: it can break mounts of others.
    umount2: u32,
    /// Numbers from here on belong to another ABI (x32) and are refused.
    end: Option<u32>,
}

const fn number(call: libc::c_long) -> u32 {
    call as u32
}

/// The calls of this very architecture, by the C library's names.
#[cfg(target_arch = "x86_64")]
const DENIED_BY_PORT: &[u32] = &[number(libc::SYS_iopl), number(libc::SYS_ioperm)];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_BY_PORT: &[u32] = &[];

const DENIED: [u32; 12] = [
    number(libc::SYS_kexec_load),
    number(libc::SYS_kexec_file_load),
    number(libc::SYS_init_module),
    number(libc::SYS_finit_module),
    number(libc::SYS_delete_module),
    number(libc::SYS_open_by_handle_at),
    number(libc::SYS_bpf),
    number(libc::SYS_perf_event_open),
    number(libc::SYS_userfaultfd),
    number(libc::SYS_swapon),
    number(libc::SYS_swapoff),
    number(libc::SYS_acct),
];

#[cfg(target_arch = "x86_64")]
const ABIS: &[Abi] = &[
    Abi { audit: 0xc000_003e, denied: &DENIED, umount2: number(libc::SYS_umount2), end: Some(0x4000_0000) },
    // i386 (which has no kexec_file_load), in the order of `DENIED`, then iopl and ioperm.
    Abi {
        audit: 0x4000_0003,
        denied: &[283, 128, 350, 129, 342, 357, 336, 374, 87, 115, 51, 110, 101],
        umount2: 52,
        end: None,
    },
];
#[cfg(target_arch = "aarch64")]
const ABIS: &[Abi] =
    &[Abi { audit: 0xc000_00b7, denied: &DENIED, umount2: number(libc::SYS_umount2), end: None }];
#[cfg(target_arch = "riscv64")]
const ABIS: &[Abi] =
    &[Abi { audit: 0xc000_00f3, denied: &DENIED, umount2: number(libc::SYS_umount2), end: None }];

/// The filter as a program for the kernel. Calls by an ABI that is not listed do not exist (ENOSYS).
pub fn program() -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE)];
    for abi in ABIS {
        let body = abi.body();
        program.push(jump(BPF_JEQ, abi.audit, 0, body.len()));
        program.extend(body);
    }
    program.push(refuse(libc::ENOSYS));
    program
}

impl Abi {
    fn body(&self) -> Vec<sock_filter> {
        let mut body = vec![load(NUMBER)];
        if let Some(end) = self.end {
            body.extend([jump(BPF_JGE, end, 0, 1), refuse(libc::ENOSYS)]);
        }
        let ports = if self.audit == ABIS[0].audit { DENIED_BY_PORT } else { &[] };
        for call in self.denied.iter().chain(ports) {
            body.extend([jump(BPF_JEQ, *call, 0, 1), refuse(EPERM)]);
        }
        body.extend([
            jump(BPF_JEQ, self.umount2, 0, 4),
            load(SECOND_ARGUMENT),
            statement(BPF_ALU | BPF_AND | BPF_K, libc::MNT_FORCE as u32),
            jump(BPF_JEQ, 0, 1, 0),
            refuse(EPERM),
            statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        ]);
        body
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

/// Skips `yes` or `no` instructions. Programs here are far shorter than the 255 a jump can reach.
fn jump(test: u32, k: u32, yes: usize, no: usize) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt: yes as u8, jf: no as u8, k }
}

fn refuse(errno: i32) -> sock_filter {
    statement(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, on a call with the given second argument.
    fn run(audit: u32, call: u32, second: u32) -> u32 {
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            match u32::from(instruction.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    accumulator = match instruction.k {
                        NUMBER => call,
                        ARCHITECTURE => audit,
                        SECOND_ARGUMENT => second,
                        other => panic!("offset {other}"),
                    };
                }
                code if code == BPF_ALU | BPF_AND | BPF_K => accumulator &= instruction.k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if accumulator == instruction.k {
                        instruction.jt
                    } else {
                        instruction.jf
                    });
                }
                code if code == BPF_JMP | BPF_JGE | BPF_K => {
                    at += usize::from(if accumulator >= instruction.k {
                        instruction.jt
                    } else {
                        instruction.jf
                    });
                }
                code if code == BPF_RET | BPF_K => return instruction.k,
                code => panic!("code {code}"),
            }
        }
    }

    const REFUSED: u32 = SECCOMP_RET_ERRNO | EPERM as u32;

    #[test]
    fn every_denied_call_is_refused_and_its_neighbours_pass() {
        for abi in ABIS {
            for call in abi.denied {
                assert_eq!(run(abi.audit, *call, 0), REFUSED, "call {call}");
            }
            assert_eq!(run(abi.audit, abi.umount2, libc::MNT_FORCE as u32 | 2), REFUSED);
            assert_eq!(run(abi.audit, abi.umount2, libc::MNT_DETACH as u32), SECCOMP_RET_ALLOW);
            for call in (0..450).filter(|call| !abi.denied.contains(call) && !DENIED_BY_PORT.contains(call)) {
                assert_eq!(run(abi.audit, call, 0), SECCOMP_RET_ALLOW, "call {call}");
            }
        }
    }

    #[test]
    fn unknown_ways_in_do_not_exist() {
        let absent = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        assert_eq!(run(0x1234, 1, 0), absent);
        if let Some(end) = ABIS[0].end {
            assert_eq!(run(ABIS[0].audit, end, 0), absent, "x32");
            assert_eq!(run(ABIS[0].audit, end + number(libc::SYS_init_module), 0), absent, "x32");
        }
    }

    #[test]
    fn jumps_stay_within_reach() {
        for abi in ABIS {
            assert!(abi.body().len() < 255);
        }
    }
}
