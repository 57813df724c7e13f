//! The network of one run of a container.

use std::fs::File;
use std::process::Child;

use super::nic::{Link, pasta};
use super::plan::Plan;
use crate::container::Process;

/// What was attached. Dropping it takes it away.
pub struct Attached {
    plan: Plan,
    helpers: Vec<Child>,
    namespace: Option<File>,
    /// Names of the interfaces inside.
    pub names: Vec<String>,
    /// What could not be had.
    pub notes: Vec<String>,
}

impl Attached {
    /// Gives the network namespace of a container's first process its interfaces.
    pub fn new(plan: &Plan, pid: i32) -> Self {
        let mut new = Self {
            plan: plan.clone(),
            helpers: Vec::new(),
            namespace: File::open(format!("/proc/{pid}/ns/net")).ok(),
            names: Vec::new(),
            notes: plan.notes.clone(),
        };
        for nic in &plan.nics {
            let attached = match nic.link {
                Link::User => pasta(nic, pid).map(|child| {
                    new.helpers.push(child);
                    Vec::new()
                }),
                _ => nic.attach(pid),
            };
            match attached {
                Ok(notes) => {
                    new.names.push(nic.name.clone());
                    new.notes.extend(notes.into_iter().map(|note| format!("{}: {note}", nic.device)));
                }
                Err(reason) => new.notes.push(format!("no interface {}: {reason}", nic.device)),
            }
        }
        for proxy in &plan.proxies {
            match proxy.start(pid) {
                Ok(child) => new.helpers.push(child),
                Err(reason) => new.notes.push(format!("{} forwards nothing: {reason}", proxy.device)),
            }
        }
        new
    }

    /// Processes that belong to it.
    pub fn helpers(&self) -> Vec<Process> {
        self.helpers.iter().filter_map(|child| Process::of(child.id() as i32).ok()).collect()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        for nic in &self.plan.nics {
            nic.clear();
            if let Some(namespace) = &self.namespace {
                nic.give_back(namespace);
            }
        }
    }
}
