//! What a running container has of networking at the moment: `network.json` in its directory. Whoever
//! changes that writes it down, and its supervisor, or whoever finds that one killed, takes it away.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_image::atomic;
use serde::{Deserialize, Serialize};

use super::nic::Nic;
use crate::container::Process;

/// How long a killed process may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Interfaces and forwarded ports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Present {
    /// Interfaces that hang on one of the host's.
    pub nics: Vec<Nic>,
    /// The process of each forwarded port, by device.
    pub forwards: BTreeMap<String, Process>,
}

impl Present {
    /// What was written down; nothing where nothing is.
    pub fn read(container: &Path) -> Self {
        fs::read(path(container)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes it down.
    pub fn write(&self, container: &Path) -> Result<(), String> {
        let path = path(container);
        let failed = |error: String| format!("{}: {error}", path.display());
        let text = serde_json::to_vec(self).map_err(|e| failed(e.to_string()))?;
        atomic::write_with_mode(&path, &text, 0o600).map_err(|e| failed(e.to_string()))
    }

    /// Ends the process of a forwarded port.
    pub fn close(&mut self, device: &str) {
        if let Some(process) = self.forwards.remove(device) {
            let _ = process.signal(libc::SIGKILL);
            let _ = process.wait(AFTER_KILL);
        }
    }

    /// Takes everything away. `namespace` was the container's; without it, the kernel has taken back
    /// what was the host's.
    pub fn clear(mut self, container: &Path, namespace: Option<&File>) {
        let devices: Vec<_> = self.forwards.keys().cloned().collect();
        for device in &devices {
            self.close(device);
        }
        for nic in &self.nics {
            nic.clear();
            if let Some(namespace) = namespace {
                let _ = nic.give_back(namespace);
            }
        }
        let _ = fs::remove_file(path(container));
    }
}

fn path(container: &Path) -> PathBuf {
    container.join("network.json")
}
