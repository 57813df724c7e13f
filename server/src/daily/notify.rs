//! Telling people of a build that failed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use millstream_client::{Error, HttpClient, HttpOptions};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Run;
use crate::config;

/// How long the command may run, and the webhook be tried.
const LIMIT: Duration = Duration::from_mins(1);

/// Tells all whom the configuration names; what does not work is said to `say`.
pub(super) fn all(settings: &config::Daily, run: &Run, say: &dyn Fn(&str)) {
    let json = serde_json::to_vec(run).unwrap_or_default();
    if let Some(shell) = &settings.on_failure
        && let Err(reason) = command(shell, run, &json)
    {
        say(&format!("on_failure: {reason}"));
    }
    if let Some(url) = &settings.webhook
        && let Err(reason) = webhook(url, &json)
    {
        say(&format!("webhook: {reason}"));
    }
}

fn command(shell: &str, run: &Run, json: &[u8]) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let log = run.log.as_ref().map(|log| log.display().to_string());
    // The details come through a file: a command that does not read them cannot hold us up.
    let mut input = tempfile::tempfile().map_err(said)?;
    input.write_all(json).and_then(|()| std::io::Seek::rewind(&mut input)).map_err(said)?;
    let mut child = Command::new("/bin/sh")
        .args(["-c", shell])
        .env("MILLSTREAM_JOB", &run.job)
        .env("MILLSTREAM_PRODUCT", &run.product)
        .env("MILLSTREAM_REASON", text(run.reason.as_ref()))
        .env("MILLSTREAM_LOG", text(log.as_ref()))
        .stdin(input)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(said)?;
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().map_err(said)? {
            return if status.success() { Ok(()) } else { Err(status.to_string()) };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _gone = kill_process_group(Pid::from_child(&child), Signal::KILL);
    child.wait().map_err(said)?;
    Err(format!("ended after {} seconds", LIMIT.as_secs()))
}

fn webhook(url: &str, json: &[u8]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let client = HttpClient::new(&HttpOptions::default()).map_err(|error| error.to_string())?;
    runtime.block_on(async {
        match tokio::time::timeout(LIMIT, client.post_json(url, json)).await {
            // The address is as good as a password, and messages end up in journals.
            Ok(answer) => answer.map_err(|error| match error {
                Error::Status { status, .. } => format!("the server answers {status}"),
                _ => "the server cannot be reached, or its address is refused".into(),
            }),
            Err(_) => Err("no answer in time".into()),
        }
    })
}
