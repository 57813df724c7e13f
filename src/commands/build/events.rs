//! `build --events`: for the program that started this build and watches it.

use millstream_builder::{Built, Error};
use millstream_runtime::CancelToken;
use millstream_server::daily::event::Event;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::output;

/// Tells what happens as lines of JSON, if it is to.
pub struct Events {
    on: bool,
    cancel: CancelToken,
}

impl Events {
    /// Events, or none. With them the build stops when whoever watches it is gone.
    pub fn new(on: bool, cancel: &CancelToken) -> anyhow::Result<Self> {
        if on {
            set_parent_process_death_signal(Some(Signal::TERM))?;
        }
        Ok(Self { on, cancel: cancel.clone() })
    }

    pub fn stage(&self, name: &str) {
        self.tell(|| Event::Stage { name: name.to_owned() });
    }

    pub fn built(&self, built: &Built, tested: bool) {
        self.tell(|| Event::Built {
            unchanged: built.unchanged.is_some(),
            stages: built.stages.iter().map(|stage| (stage.name.clone(), stage.seconds)).collect(),
            tested,
        });
    }

    pub fn busy(&self) {
        self.tell(|| Event::Busy);
    }

    pub fn failed(&self, error: &anyhow::Error) {
        self.tell(|| {
            let (cause, log) = match error.downcast_ref::<Error>() {
                Some(Error::Logged { log, source }) => (Some(&**source), Some(log.clone())),
                other => (other, None),
            };
            Event::Failed {
                reason: match cause {
                    // Its console is in the log.
                    Some(Error::BootTest { reason, .. }) => format!("the boot test failed: {reason}"),
                    Some(cause) => cause.to_string(),
                    None => format!("{error:#}"),
                },
                in_test: matches!(cause, Some(Error::BootTest { .. })),
                log,
            }
        });
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if self.on && !output::delivered(&event().to_line()) {
            self.cancel.cancel();
        }
    }
}
