//! Work at set times: each [`Job`] has a [`Cron`] expression in UTC, [`Scheduler`] runs it.
//!
//! A slot is a time the expression names. It counts as done once the job has come back, and is then
//! written down in the schedule's directory; so what was missed or cut short runs once when the
//! scheduler is there again, however many slots went by. A job does not run twice at the same time,
//! also with two schedulers on one directory.

mod slots;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use millstream_runtime::CancelToken;
use tokio::task::JoinSet;

pub use millstream_runtime::Cron;
pub use slots::Slots;

use crate::Result;

/// Longest sleep: a clock that is set, or a machine that was suspended, is noticed within this time.
const LOOK: Duration = Duration::from_secs(30);
/// How often a request to stop is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Something done at set times.
pub trait Job: Send + Sync {
    /// Its name, by which its slots are kept: `daily-debian`. Letters, digits, `.`, `_` and `-`.
    fn name(&self) -> &str;

    /// When it is due.
    fn schedule(&self) -> &Cron;

    /// Does it, on a thread of its own; returns soon once `cancel` is cancelled. Failures are the
    /// job's own to report; the slot is done all the same, unless it was cancelled.
    fn run(&self, slot: DateTime<Utc>, cancel: &CancelToken);
}

/// What time it is; another one in tests.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Runs jobs at their times.
pub struct Scheduler {
    jobs: Vec<Arc<dyn Job>>,
    slots: Arc<Slots>,
    clock: Clock,
    say: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Scheduler {
    /// A scheduler that keeps what it has done in `slots`, and tells `say` what it could not do.
    pub fn new(jobs: Vec<Arc<dyn Job>>, slots: Slots, say: Arc<dyn Fn(&str) + Send + Sync>) -> Self {
        Self { jobs, slots: Arc::new(slots), clock: Arc::new(Utc::now), say }
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Runs jobs as they become due, until `cancel` is cancelled; then waits for those under way.
    pub async fn run(&self, cancel: &CancelToken) {
        let mut loops = JoinSet::new();
        for job in &self.jobs {
            let (job, slots, cancel) = (Arc::clone(job), Arc::clone(&self.slots), cancel.clone());
            let (clock, say) = (Arc::clone(&self.clock), Arc::clone(&self.say));
            loops.spawn(async move {
                while !cancel.is_cancelled() {
                    let wait = match run_due(&job, &slots, &clock, &cancel).await {
                        Ok(wait) => wait,
                        Err(error) => {
                            say(&format!("{}: {error}", job.name()));
                            LOOK
                        }
                    };
                    sleep(wait, &cancel).await;
                }
            });
        }
        while loops.join_next().await.is_some() {}
    }
}

/// Runs the job if a slot is due; how long to wait until it is looked at again.
async fn run_due(
    job: &Arc<dyn Job>,
    slots: &Arc<Slots>,
    clock: &Clock,
    cancel: &CancelToken,
) -> Result<Duration> {
    let now = clock();
    let Some(slot) = slots.due(job.name(), job.schedule(), now)? else {
        let next = job.schedule().next(now);
        return Ok(next.and_then(|next| (next - now).to_std().ok()).map_or(LOOK, |wait| wait.min(LOOK)));
    };
    let (job, slots, cancel) = (Arc::clone(job), Arc::clone(slots), cancel.clone());
    let work = move || {
        // Another process may be at it, or have done it in this moment.
        let Some(turn) = slots.begin(job.name(), slot)? else { return Ok(LOOK) };
        job.run(slot, &cancel);
        if !cancel.is_cancelled() {
            turn.done()?;
        }
        Ok(Duration::ZERO)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(waited) => waited,
        // The job panicked; that is no reason to end the others.
        Err(_) => Ok(LOOK),
    }
}

async fn sleep(wait: Duration, cancel: &CancelToken) {
    let end = tokio::time::Instant::now() + wait;
    while !cancel.is_cancelled() && tokio::time::Instant::now() < end {
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + TICK)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Recorder {
        schedule: Cron,
        ran: Mutex<Vec<DateTime<Utc>>>,
        cancel_in: bool,
    }

    impl Job for Recorder {
        fn name(&self) -> &'static str {
            "test"
        }

        fn schedule(&self) -> &Cron {
            &self.schedule
        }

        fn run(&self, slot: DateTime<Utc>, cancel: &CancelToken) {
            self.ran.lock().unwrap().push(slot);
            if self.cancel_in {
                cancel.cancel();
            }
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// Runs a scheduler for a moment at a fixed time; the slots it ran.
    async fn slots_run(dir: &std::path::Path, now: &str, cancel_in: bool) -> Vec<DateTime<Utc>> {
        let job =
            Arc::new(Recorder { schedule: "0 3 * * *".parse().unwrap(), ran: Mutex::default(), cancel_in });
        let now = at(now);
        let jobs: Vec<Arc<dyn Job>> = vec![job.clone()];
        let scheduler = Scheduler::new(jobs, Slots::open(dir).unwrap(), Arc::new(|text| panic!("{text}")))
            .with_clock(Arc::new(move || now));
        let cancel = CancelToken::new();
        let stopper = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stopper.cancel();
        });
        scheduler.run(&cancel).await;
        job.ran.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn missed_slots_run_once_and_a_cancelled_one_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(slots_run(dir, "2026-01-01T02:00:00Z", false).await.is_empty(), "nothing is due at first");
        assert_eq!(slots_run(dir, "2026-01-01T03:00:00Z", false).await, [at("2026-01-01T03:00:00Z")]);
        assert!(slots_run(dir, "2026-01-01T04:00:00Z", false).await.is_empty());
        // Down for three days: the newest slot, once; cut short it is still to do.
        let missed = [at("2026-01-04T03:00:00Z")];
        assert_eq!(slots_run(dir, "2026-01-04T12:00:00Z", true).await, missed);
        assert_eq!(slots_run(dir, "2026-01-04T12:01:00Z", false).await, missed);
        assert!(slots_run(dir, "2026-01-04T12:02:00Z", false).await.is_empty());
        // A clock that goes back runs nothing twice.
        assert!(slots_run(dir, "2026-01-03T12:00:00Z", false).await.is_empty());
    }

    #[tokio::test]
    async fn a_job_under_way_elsewhere_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(slots_run(dir.path(), "2026-01-01T02:00:00Z", false).await.is_empty());
        let other = Slots::open(dir.path()).unwrap();
        let turn = other.begin("test", at("2026-01-01T03:00:00Z")).unwrap().unwrap();
        assert!(slots_run(dir.path(), "2026-01-01T03:00:00Z", false).await.is_empty());
        drop(turn);
        assert_eq!(slots_run(dir.path(), "2026-01-01T03:00:00Z", false).await.len(), 1);
    }
}
