//! The network of one run of a container.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;

use super::nic::{Link, pasta};
use super::plan::Plan;
use super::present::Present;
use crate::container::Process;

/// What was attached. Dropping it takes it away, and what came later.
pub struct Attached {
    container: PathBuf,
    present: Present,
    helpers: Vec<Child>,
    namespace: Option<File>,
    /// Names of the interfaces inside.
    pub names: Vec<String>,
    /// What could not be had.
    pub notes: Vec<String>,
}

impl Attached {
    /// Gives the network namespace of a container's first process its interfaces. `container` is the
    /// container's directory.
    pub fn new(container: &Path, plan: &Plan, pid: i32) -> Self {
        let mut new = Self {
            container: container.to_path_buf(),
            present: Present::default(),
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
                _ => nic.attach(pid).inspect(|_| new.present.nics.push(nic.clone())),
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
                Ok(process) => drop(new.present.forwards.insert(proxy.device.clone(), process)),
                Err(reason) => new.notes.push(format!("{} forwards nothing: {reason}", proxy.device)),
            }
        }
        // Without it, only what comes and goes later is not known at the end.
        new.notes.extend(new.present.write(container).err());
        new
    }

    /// Processes that belong to it.
    pub fn helpers(&self) -> Vec<Process> {
        let children = self.helpers.iter().filter_map(|child| Process::of(child.id() as i32).ok());
        children.chain(self.present.forwards.values().copied()).collect()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        std::mem::take(&mut self.present).clear(Path::new(""), self.namespace.as_ref());
        Present::read(&self.container).clear(&self.container, self.namespace.as_ref());
    }
}
