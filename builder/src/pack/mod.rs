//! Images from a root file system that exists already, which is only read.

mod describe;
mod tree;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use millstream_image::archive::{Devices, ExtractOptions, extract};
use millstream_image::{Architecture, Serial, Sha256Digest, atomic, manifest};
use millstream_runtime::CancelToken;

use crate::build::Built;
use crate::files::{self, Generated};
use crate::format::Formats;
use crate::output::{self, Output};
use crate::recipe::Resolved;
use crate::rootfs::Rootfs;
use crate::source::{Origin, oci};
use crate::staging::{self, Staging};
use crate::{Error, Result};

/// How to pack.
pub struct PackOptions<'a> {
    /// Directory that appears with the image's files; must not exist.
    pub out: &'a Path,
    /// A recipe that describes the image; `None` to look into the root file system.
    pub metadata: Option<&'a Path>,
    /// What the image is, `image.release=bookworm`, over what is found.
    pub overrides: &'a [String],
    /// Distribution and release, where neither the overrides nor the root file system name them.
    pub named: Option<(&'a str, &'a str)>,
    /// Serial where nothing else names one.
    pub serial: Serial,
    /// Seconds since 1970 to which times are clamped (`SOURCE_DATE_EPOCH`). None: the newest file's.
    pub epoch: Option<i64>,
    /// What to make.
    pub formats: &'a Formats,
    /// Compression threads.
    pub threads: usize,
    /// Told of stages.
    pub stage: &'a dyn Fn(&str),
    /// Stops the work.
    pub cancel: &'a CancelToken,
}

/// Packs the root file system at `source`, a directory or an archive of one. `options.out` appears
/// complete or not at all. Sees the files as the caller does: an ordinary user's own files are
/// root's in the image when this runs as root of a user namespace.
///
/// # Errors
/// When the source is no root file system, its description is incomplete, or packing fails.
pub fn pack(source: &Path, options: &PackOptions<'_>) -> Result<Built> {
    let out = options.out;
    staging::must_be_new(out)?;
    options.formats.check_host()?;
    let source_path = fs::canonicalize(source).map_err(Error::io(source))?;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real_parent = parent.ancestors().find_map(|p| fs::canonicalize(non_empty(p)).ok());
    if source_path.is_dir() && real_parent.is_some_and(|p| p.starts_with(&source_path)) {
        return Err(Error::Refused(format!(
            "{} is inside {}, which is only read; choose another --out",
            out.display(),
            source.display()
        )));
    }
    if source_path.is_dir() && options.formats.keep_directory() {
        return Err(Error::Refused(format!(
            "{} is a directory already; leave dir out of --format",
            source.display()
        )));
    }
    // Modes in the image must not depend on who packs.
    rustix::process::umask(rustix::fs::Mode::from(0o022));
    let staging = Staging::new(parent, ".millstream-build-")?;
    let work = fs::canonicalize(staging.path()).map_err(Error::io(staging.path()))?;
    let log_path = work.join("build.log");
    let log = File::create(&log_path).map_err(Error::io(&log_path))?;
    let packing = Packing { options, log, log_path };
    let manifest = packing.run(&source_path, &work)?;
    packing.log.sync_all().map_err(Error::io(&packing.log_path))?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(staging.path(), readable).map_err(Error::io(staging.path()))?;
    options.cancel.check()?;
    atomic::rename(staging.path(), out)?;
    let _gone = staging.keep();
    Ok(Built { dir: out.to_path_buf(), manifest, unchanged: None, stages: Vec::new() })
}

fn non_empty(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

struct Packing<'a> {
    options: &'a PackOptions<'a>,
    log: File,
    log_path: PathBuf,
}

impl Packing<'_> {
    fn run(&self, source: &Path, work: &Path) -> Result<Option<manifest::Manifest>> {
        let formats = self.options.formats;
        let unpacked = work.join("rootfs");
        let (root, sources) = if !source.is_dir() {
            (self.options.stage)("unpack");
            let sources = vec![self.unpack(source, &unpacked)?];
            self.apply_layers(work, &unpacked)?;
            (unpacked.clone(), sources)
        } else if self.unpack_layers(source, &unpacked)? {
            (unpacked.clone(), Vec::new())
        } else {
            (source.to_path_buf(), Vec::new())
        };
        let rootfs = Rootfs::open(&root)?;
        let newest = tree::newest(&root)?;
        let resolved = describe::resolve(&rootfs, self.options)?;
        self.note(&format!("{} from {}", resolved.product, name(source)))?;
        if formats.only_directory() {
            return Ok(None);
        }
        let serial: Serial = resolved.definition.image.serial.parse()?;
        let generated = self.generated(&resolved, &rootfs)?;
        // A file from the future would make every archive look as if from there.
        let date = newest.min(serial.time().timestamp());
        let origin = Origin { sources, date, installed: None };
        let output = Output {
            resolved: &resolved,
            formats,
            serial,
            epoch: self.options.epoch.unwrap_or(date),
            threads: self.options.threads,
            block_cache: None,
            cancel: self.options.cancel,
        };
        (self.options.stage)("pack");
        let (mut manifest, _) =
            output.write(work, &rootfs, &generated, &origin, |text| self.note(text.trim_end()))?;
        output::describe(work, &mut manifest, Vec::new())?;
        if !formats.keep_directory() && unpacked.exists() {
            fs::remove_dir_all(&unpacked).map_err(Error::io(&unpacked))?;
        }
        Ok(Some(manifest))
    }

    /// Unpacks an archive, as strictly as any from outside.
    fn unpack(&self, source: &Path, target: &Path) -> Result<manifest::Source> {
        fs::create_dir(target).map_err(Error::io(target))?;
        let open = || File::open(source).map_err(Error::io(source));
        let devices = if tree::may_make_devices()? { Devices::Create } else { Devices::Skip };
        if devices == Devices::Skip {
            self.note("devices in the archive are left out: only root can make them")?;
        }
        let options = ExtractOptions { devices, ..ExtractOptions::default() };
        extract(open()?, target, &options)?;
        let (sha256, _) = Sha256Digest::of_reader(open()?).map_err(Error::io(source))?;
        Ok(manifest::Source { url: name(source), name: name(source), sha256 })
    }

    /// What was unpacked may have been the archive of an OCI layout: then the root file system is in that.
    fn apply_layers(&self, work: &Path, unpacked: &Path) -> Result<()> {
        let layout = work.join("layout");
        fs::rename(unpacked, &layout).map_err(Error::io(&layout))?;
        if self.unpack_layers(&layout, unpacked)? {
            return fs::remove_dir_all(&layout).map_err(Error::io(&layout));
        }
        fs::rename(&layout, unpacked).map_err(Error::io(&layout))
    }

    fn unpack_layers(&self, layout: &Path, root: &Path) -> Result<bool> {
        let given = self.options.overrides.iter().find_map(|text| text.strip_prefix("image.architecture="));
        let architecture = given.map_or_else(|| Ok(Architecture::host()), str::parse)?;
        oci::unpack_if_image(layout, root, architecture, self.options.cancel)
    }

    /// Templates of the metadata. What else a recipe does to a root file system is left aside.
    fn generated(&self, resolved: &Resolved, rootfs: &Rootfs) -> Result<Generated> {
        let mut generated = Generated::default();
        let base = self.options.metadata.and_then(Path::parent).unwrap_or(Path::new("."));
        for file in &resolved.definition.files {
            if file.generator == "template" {
                files::run(file, &resolved.definition.targets, rootfs, base, &mut generated)?;
            } else {
                self.note(&format!("left aside: generator {} for {}", file.generator, file.path))?;
            }
        }
        let actions = resolved.definition.actions.len();
        if actions > 0 {
            self.note(&format!("left aside: {actions} actions"))?;
        }
        Ok(generated)
    }

    fn note(&self, text: &str) -> Result<()> {
        (&self.log).write_all(format!("==> {text}\n").as_bytes()).map_err(Error::io(&self.log_path))
    }
}

/// A path of this machine is nobody's business elsewhere.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
