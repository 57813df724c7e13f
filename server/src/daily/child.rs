//! A build in a process of its own: watched, stopped when it must be, its messages kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use millstream_runtime::CancelToken;
use rustix::process::{Pid, Signal, kill_process};

use super::event::Event;
use super::log::Log;

/// How often it is looked after.
const TICK: Duration = Duration::from_millis(50);
/// How long a build that was asked to stop may clean up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long what a dead build started may hold its output.
const LEFTOVER: Duration = Duration::from_secs(2);

/// What a build said and how it ended.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) events: Vec<Event>,
    /// The last line that is no event.
    pub(super) published: Option<PathBuf>,
    pub(super) status: ExitStatus,
    /// It was stopped since it ran for too long.
    pub(super) too_long: bool,
}

impl Ended {
    pub(super) fn how(&self) -> String {
        match self.status.signal() {
            Some(signal) => format!("killed by signal {signal}"),
            None => self.status.to_string(),
        }
    }
}

enum Said {
    Line(String),
    Message(Vec<u8>),
}

/// Runs it to its end; its events go to `event` as they come, its messages to `log`.
pub(super) fn run(
    command: &mut Command,
    log: &mut Log,
    limit: Duration,
    cancel: &CancelToken,
    event: &mut dyn FnMut(&Event),
) -> std::io::Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C of a terminal is ours to pass on.
    let mut child = command.process_group(0).spawn()?;
    let (sender, said) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        let sender = sender.clone();
        std::thread::spawn(move || lines(out, &sender));
    }
    if let Some(messages) = child.stderr.take() {
        std::thread::spawn(move || blocks(messages, &sender));
    }
    let mut ended = Ended::default();
    let mut stopping = Stopping { limit: Instant::now() + limit, since: None };
    let mut gone: Option<Instant> = None;
    loop {
        match said.recv_timeout(TICK) {
            Ok(Said::Message(bytes)) => log.write_all(&bytes)?,
            Ok(Said::Line(line)) => match Event::parse(&line) {
                Some(said) => {
                    event(&said);
                    ended.events.push(said);
                }
                None => ended.published = Some(line.into()),
            },
            Err(RecvTimeoutError::Disconnected) => {
                // It closed its output, and so is gone or about to be.
                if gone.is_none() {
                    std::thread::sleep(TICK);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if gone.is_none() {
            ended.too_long |= stopping.check(&mut child, cancel)?;
            if let Some(status) = child.try_wait()? {
                ended.status = status;
                gone = Some(Instant::now());
            }
        } else if gone.is_some_and(|since| since.elapsed() > LEFTOVER) || drained(&said, log, &mut ended)? {
            return Ok(ended);
        }
    }
}

/// Takes what is still on its way from a process that is gone; true when there is no more to come.
fn drained(said: &mpsc::Receiver<Said>, log: &mut Log, ended: &mut Ended) -> std::io::Result<bool> {
    loop {
        match said.try_recv() {
            Ok(Said::Message(bytes)) => log.write_all(&bytes)?,
            Ok(Said::Line(line)) => match Event::parse(&line) {
                Some(event) => ended.events.push(event),
                None => ended.published = Some(line.into()),
            },
            Err(mpsc::TryRecvError::Empty) => return Ok(false),
            Err(mpsc::TryRecvError::Disconnected) => return Ok(true),
        }
    }
}

struct Stopping {
    limit: Instant,
    since: Option<Instant>,
}

impl Stopping {
    /// Asks the build to stop when it must, and ends it when it does not listen; true when it ran
    /// for too long.
    fn check(&mut self, child: &mut Child, cancel: &CancelToken) -> std::io::Result<bool> {
        let late = Instant::now() > self.limit;
        match self.since {
            None if late || cancel.is_cancelled() => {
                self.since = Some(Instant::now());
                let _gone = kill_process(Pid::from_child(child), Signal::TERM);
                return Ok(late);
            }
            Some(since) if since.elapsed() > PATIENCE => child.kill()?,
            _ => {}
        }
        Ok(false)
    }
}

fn lines(from: impl Read, to: &Sender<Said>) {
    for line in BufReader::new(from).lines() {
        let Ok(line) = line else { return };
        if to.send(Said::Line(line)).is_err() {
            return;
        }
    }
}

fn blocks(mut from: impl Read, to: &Sender<Said>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.send(Said::Message(buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration, cancel: &CancelToken) -> (Ended, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::create(&path).unwrap();
        let mut command = Command::new("/bin/sh");
        let ended = run(command.args(["-c", script]), &mut log, limit, cancel, &mut |_| {}).unwrap();
        log.finish().unwrap();
        (ended, std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn events_messages_and_ends_are_told_apart() {
        let (limit, cancel) = (Duration::from_secs(30), CancelToken::new());
        let script = r#"echo '{"event":"stage","name":"pack"}'; echo some words >&2; echo /a/dir; exit 3"#;
        let (ended, log) = shell(script, limit, &cancel);
        assert_eq!(ended.events, [Event::Stage { name: "pack".into() }]);
        assert_eq!(ended.published, Some("/a/dir".into()));
        assert_eq!((ended.status.code(), log.as_str()), (Some(3), "some words\n"));
        // Somebody it left behind holds its output.
        let (ended, _) = shell("sleep 20 & kill -9 $$", limit, &cancel);
        assert_eq!(ended.how(), "killed by signal 9");
        let (ended, _) = shell("exec sleep 20", Duration::from_millis(100), &cancel);
        assert!(ended.too_long, "{}", ended.how());
        cancel.cancel();
        let (ended, _) = shell("exec sleep 20", limit, &cancel);
        assert!(!ended.too_long && ended.status.signal() == Some(15), "{}", ended.how());
    }
}
