//! Runs scripts inside the root file system being built and keeps what they print.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use millstream_runtime::CancelToken;
use millstream_runtime::sandbox::{Exec, Sandbox};

use crate::{Error, Result};

/// Last lines of a failing script that an error quotes.
const QUOTED: usize = 15;

/// Where and how the scripts of one build run.
pub struct Scripts<'a> {
    /// The root file system's sandbox.
    pub sandbox: Sandbox,
    /// Environment of every script.
    pub env: BTreeMap<String, String>,
    /// Seconds a script may run.
    pub timeout: u64,
    /// Gets everything scripts print.
    pub log: &'a RefCell<File>,
    /// The log's final place, for error messages.
    pub log_path: PathBuf,
    /// Ends a running script.
    pub cancel: &'a CancelToken,
}

impl Scripts<'_> {
    /// Runs a script with a `#!` line; `what` says in log and errors what it is for.
    ///
    /// # Errors
    /// When it fails, with its last lines.
    pub fn run(&self, what: &str, script: &str) -> Result<()> {
        self.note(what)?;
        let exec = Exec {
            argv: Vec::new(),
            env: self.env.clone(),
            script: Some(script.to_owned()),
            timeout: Some(self.timeout),
        };
        let mut tail = Vec::new();
        let mut log_error = None;
        let mut output = |chunk: &[u8]| {
            if let Err(error) = self.log.borrow_mut().write_all(chunk) {
                log_error.get_or_insert(error);
            }
            tail.extend_from_slice(chunk);
            let excess = tail.len().saturating_sub(8 << 10);
            tail.drain(..excess);
        };
        let status = self.sandbox.run(&exec, self.cancel, &mut output)?;
        if let Some(error) = log_error {
            return Err(Error::io(&self.log_path)(error));
        }
        if status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(QUOTED)..].join("\n  ");
        Err(Error::Script { what: what.to_owned(), status: status.to_string(), last })
    }

    /// Writes a heading into the log.
    pub fn note(&self, what: &str) -> Result<()> {
        writeln!(self.log.borrow_mut(), "==> {what}").map_err(Error::io(&self.log_path))
    }
}
