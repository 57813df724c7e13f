//! Links the program at a fixed address.
//!
//! Each running container has a process of this program. Were it moved to an address of its own, the
//! loader would write into a megabyte of tables, and each process would have these for itself: several
//! times of what a supervisor needs. Libraries, stack and heap stay where nobody knows beforehand.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    // Other C libraries are linked statically, in their own way.
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
