//! The stage `bootstrap` of an apt distribution: the root file system out of a shared base.

use std::path::Path;

use millstream_runtime::sandbox::mounts::Overlay;

use super::Build;
use super::base::{Base, Bases, Contents};
use crate::apt::bootstrap::{Installed, Plan};
use crate::recipe::Resolved;
use crate::script::Scripts;
use crate::source::{Context, Origin, debootstrap};
use crate::{Error, Result};

/// What a root file system rests on while it is built. The overlay goes before the base is let go.
pub(super) struct Lent {
    _overlay: Option<Overlay>,
    _base: Base,
}

impl Build<'_> {
    /// Makes the root file system out of a base, which is made first when it is not there.
    pub(super) fn bootstrap(
        &self,
        plan: Plan,
        context: &Context<'_>,
        scratch: &Path,
        scripts: &mut Scripts<'_>,
    ) -> Result<(Origin, Option<Lent>)> {
        let bases = Bases::open(self.cache)?;
        let contents = contents(self.resolved, &plan, scripts)?;
        let (origin, lent, note) = self.stage("bootstrap", || {
            let found = bases.find(&contents)?;
            let root = context.root;
            if found.is_none() && self.options.formats.keep_directory() {
                // A directory is handed over as it is, so it cannot rest on anything.
                let installed = debootstrap::base(context, plan, root, scripts)?;
                return Ok((debootstrap::settle(installed, root, scripts)?, None, String::new()));
            }
            let packages = contents.packages.len();
            let (base, installed, from) = if let Some(base) = found {
                let installed = Installed::adopt(plan, base.time)?;
                (base, installed, format!("a base of {packages} packages from the cache"))
            } else {
                let (base, installed) = self.base(plan, context, &bases, &contents)?;
                (base, installed, format!("a new base of {packages} packages"))
            };
            let mounts = self.options.mounts.filter(|_| !self.options.formats.keep_directory());
            let (overlay, how) = base.lend(root, scratch, mounts)?;
            let origin = debootstrap::settle(installed, root, scripts)?;
            Ok((origin, Some(Lent { _overlay: overlay, _base: base }), format!("{from}, {how}")))
        })?;
        self.note(&note)?;
        Ok((origin, lent))
    }

    fn base(
        &self,
        plan: Plan,
        context: &Context<'_>,
        bases: &Bases,
        contents: &Contents,
    ) -> Result<(Base, Installed)> {
        let mut made = None;
        let base = bases.make(contents, |root| {
            let root = std::fs::canonicalize(root).map_err(Error::io(root))?;
            let mut scripts = self.scripts(&root);
            let installed = debootstrap::base(context, plan, &root, &mut scripts)?;
            let time = installed.time;
            made = Some(installed);
            Ok(time)
        })?;
        let installed = made.ok_or_else(|| Error::Internal("a base was not made".into()))?;
        Ok((base, installed))
    }
}

/// All that the base of a plan depends on.
pub(super) fn contents(resolved: &Resolved, plan: &Plan, scripts: &Scripts<'_>) -> Result<Contents> {
    let product = &resolved.product;
    let name = format!("{}:{}:{}", product.distribution(), product.release(), product.architecture());
    let environment = scripts.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Contents { name, packages: plan.base()?, environment })
}
