//! Everything a client keeps, looked at: the store, and what it has seen of remotes.

use std::path::Path;
use std::sync::PoisonError;

use crate::client::Client;
use crate::problem::{Kind, Mender};
use crate::store::{check, take_away};
use crate::trust::TrustFile;
use crate::{Remotes, Result};

impl Client {
    /// Looks for everything that may be wrong with what this client keeps, every byte of its images
    /// included, and heals what `mender` is to heal. Others may use the store meanwhile. Blocks.
    ///
    /// # Errors
    /// When the store cannot be looked at.
    pub fn check(&self, mender: &mut Mender) -> Result<()> {
        // It holds a lock that a repair needs.
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = None;
        check::check(&self.config.store, mender)?;
        self.check_remotes(mender);
        Ok(())
    }

    fn check_remotes(&self, mender: &mut Mender) {
        let remotes = match self.remotes() {
            Ok(remotes) => remotes,
            Err(error) => {
                let advice = "correct it, or remove it and add the remotes again with their keys";
                mender.told(Kind::Remotes, &self.config.remotes, error.to_string(), advice);
                Remotes::default()
            }
        };
        for name in remotes.remotes.keys() {
            let file = TrustFile::new(&self.config.trust, name);
            let Err(error) = file.load(&[]) else { continue };
            // Never by itself: forgetting opens the door to what is older.
            mender.found(Kind::Trust, file.path(), error.to_string(), || {
                let to = take_away(&self.config.trust, file.path(), "what was seen of a remote")?;
                Ok::<_, crate::Error>(format!(
                    "moved to {}; what {name} shows next is believed, however old it is",
                    shown(&to)
                ))
            });
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
