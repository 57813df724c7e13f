//! Whoever looks after a running server: signals, and systemd.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;

use millstream_server::config::Config;
use millstream_server::http::Control;
use millstream_server::systemd::Notify;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::{read_config, settings};
use crate::cli::server::Serve;
use crate::output::say;
use crate::paths::Paths;

pub struct Supervisor<'a> {
    command: &'a Serve,
    /// What the server was started with.
    config: &'a Config,
    quiet: bool,
    notify: Notify,
    on_terminal: bool,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl<'a> Supervisor<'a> {
    pub fn new(command: &'a Serve, config: &'a Config, quiet: bool) -> anyhow::Result<Self> {
        Ok(Self {
            command,
            config,
            quiet,
            notify: Notify::from_env(),
            on_terminal: stderr().is_terminal(),
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Reads settings again at SIGHUP, until SIGINT, SIGTERM, or the terminal is gone.
    pub async fn until_stopped(mut self, control: &Control, serving: &str) {
        self.notify.ready(serving);
        // Twice as often as systemd asks for.
        let mut beat = self.notify.watchdog().map(|limit| interval(limit / 2));
        if let Some(beat) = &mut beat {
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                _ = self.hangup.recv() => {
                    if self.on_terminal && !stderr().is_terminal() {
                        break;
                    }
                    self.reload(control, serving).await;
                }
                () = next(&mut beat) => {
                    if control.answers().await {
                        self.notify.alive();
                    }
                }
            }
        }
        self.notify.stopping("downloads under way may finish");
    }

    /// Says what became of it; what fails changes nothing.
    async fn reload(&self, control: &Control, serving: &str) {
        self.notify.reloading();
        match self.try_reload(control).await {
            Ok(waiting) => {
                say(self.quiet, "certificates, [[access]] and [serve.limits] are read again");
                if !waiting.is_empty() {
                    let waiting = waiting.join(", ");
                    say(false, &format!("{waiting}: the change needs a restart"));
                }
                self.notify.ready(serving);
            }
            Err(error) => {
                say(false, &format!("{error:#}; everything stays as it was"));
                self.notify.ready(&format!("not reloaded: {error:#}; {serving}"));
            }
        }
    }

    async fn try_reload(&self, control: &Control) -> anyhow::Result<Vec<&'static str>> {
        let (paths, file): (_, Option<PathBuf>) = (Paths::from_env(), self.command.config.clone());
        let config = read_config(file.as_deref(), &paths)?;
        control.reload(settings(self.command, &config, &paths)?).await?;
        Ok(self.config.needs_restart(&config))
    }
}

/// The next tick; never without a clock.
async fn next(beat: &mut Option<tokio::time::Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}
