//! What a client withstands of what reaches it from outside: a file an attack.

mod support;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../../../tests/support/trace.rs"]
mod trace;

mod access;
mod api_export;
mod arbitrary_image;
mod broken_transfers;
mod cancelled;
mod deltas;
mod endless_data;
mod extra_input;
mod extra_signer;
mod fast_forward;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod faults;
mod freeze;
mod key_rotation;
mod killed;
mod malicious_mirror;
mod mirrors;
mod missing_signature;
mod mix_and_match;
mod one_pass;
mod path_escape;
mod rollback;
mod slow_data;
mod unknown_key;
mod updates;
mod wrong_software;
