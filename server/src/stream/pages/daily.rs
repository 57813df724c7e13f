//! The page of daily builds: not of the tree, but drawn as its pages are.

use serde::Serialize;
use tera::Context;

use super::Pages;
use crate::Result;

/// A build as the page shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Build {
    /// Its number.
    pub(crate) id: i64,
    /// Name of the `[[daily]]`.
    pub(crate) job: String,
    /// Of which product.
    pub(crate) product: String,
    /// `running`, or how it ended.
    pub(crate) state: &'static str,
    /// The stage it is in, or failed in.
    pub(crate) stage: Option<String>,
    /// When it began, UTC.
    pub(crate) started: String,
    /// Seconds it took, or has taken until now.
    pub(crate) seconds: i64,
    /// The image that is published.
    pub(crate) serial: Option<String>,
    /// The image's page, from the root.
    pub(crate) page: Option<String>,
    /// The log, from the root.
    pub(crate) log: Option<String>,
    /// Whether the boot test was passed; `None` when there was none.
    pub(crate) boot_test: Option<bool>,
    /// Packages that are other ones than in the image before.
    pub(crate) packages: usize,
    /// Why it failed.
    pub(crate) reason: Option<String>,
}

/// Draws the page.
pub(crate) fn render(builds: &[Build]) -> Result<Vec<u8>> {
    let mut context = Context::new();
    context.insert("base", "");
    context.insert("builds", builds);
    Pages::new(&[])?.render("daily.html", context)
}
