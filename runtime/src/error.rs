use std::path::{Path, PathBuf};

/// What can go wrong while running programs and containers in namespaces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The sandbox could not be set up.
    #[error("cannot set up a sandbox in {}: {reason}", rootfs.display())]
    Setup {
        /// The root file system concerned.
        rootfs: PathBuf,
        /// Which step failed and why.
        reason: String,
    },
    /// An ordinary user could not be made root of a user namespace.
    #[error("cannot work without root here: {reason}")]
    UserNamespace {
        /// What is missing, and how to get it.
        reason: String,
    },
    /// The program ran longer than allowed and was ended with everything it had started.
    #[error("{program} ran longer than {seconds} seconds and was ended")]
    Timeout {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// A container's name is no host name.
    #[error("\"{name}\" cannot name a container: {reason}")]
    Name {
        /// The name as given, shortened and without control characters.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no such container.
    #[error("there is no container {name}")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// A container without an overlay has no layers to make snapshots and copies of.
    #[error(
        "it has no layers, as no overlay can be mounted where its files are ({reason}); keep containers on another file system"
    )]
    NoLayers {
        /// What the kernel said.
        reason: String,
    },
    /// There is no such snapshot.
    #[error("{name} has no snapshot {snapshot}")]
    NoSnapshot {
        /// The container.
        name: String,
        /// The name asked for.
        snapshot: String,
    },
    /// The name of a snapshot is taken.
    #[error("{name} already has a snapshot {snapshot}; choose another name or delete it first")]
    SnapshotExists {
        /// The container.
        name: String,
        /// The name.
        snapshot: String,
    },
    /// The name is taken.
    #[error("there already is a container {name}; choose another name or delete it first")]
    Exists {
        /// The name.
        name: String,
    },
    /// Another command is at work on the container.
    #[error("another command is at work on {name}; try again when it is done")]
    Busy {
        /// The container or image.
        name: String,
    },
    /// The container is running.
    #[error("{name} is running; stop it first")]
    Running {
        /// The container.
        name: String,
    },
    /// Not all processes of a container could be made to stand still.
    #[error("{name} did not stand still within {seconds} seconds, so that nothing was copied; stop it first")]
    NotFrozen {
        /// The container.
        name: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The container is not running.
    #[error("{name} is not running; start it first")]
    NotRunning {
        /// The container.
        name: String,
    },
    /// A container did not come up; nothing of it is left running.
    #[error("{name} did not start: {reason}{}", console_text(console))]
    Start {
        /// The container.
        name: String,
        /// Which step failed and why.
        reason: String,
        /// The last lines on its console.
        console: Vec<String>,
    },
    /// A command could not be run inside a container.
    #[error("cannot run a command in {name}: {reason}")]
    Exec {
        /// The container.
        name: String,
        /// Which step failed and why.
        reason: String,
    },
    /// A terminal could not be connected to a container's console.
    #[error("the console of {name}: {reason}")]
    Console {
        /// The container.
        name: String,
        /// What the system said.
        reason: String,
    },
    /// A file could not be copied into a container or out of it.
    #[error("files of {name}: {reason}")]
    Files {
        /// The container.
        name: String,
        /// Which file and why.
        reason: String,
    },
    /// A container did not end even when killed.
    #[error("{name} is still there {seconds} seconds after it was killed")]
    Unkillable {
        /// The container.
        name: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// No range of ids is free for another container.
    #[error("no range of 65536 user ids is left; delete containers or extend root's line in /etc/subuid")]
    NoIds,
    /// The image is for another architecture.
    #[error("the image is for {image}, this host is {host}")]
    Architecture {
        /// Kernel name of the image's.
        image: String,
        /// Kernel name of the host's.
        host: String,
    },
    /// Something is in use and cannot be removed.
    #[error("image {fingerprint} is used by {}", containers.join(", "))]
    ImageInUse {
        /// The image, shortened.
        fingerprint: String,
        /// Who uses it.
        containers: Vec<String>,
    },
    /// An ordinary user's container has no control group of its own.
    #[error("this needs a control group of the container's own; {how}")]
    NoControlGroup {
        /// How there could be one.
        how: String,
    },
    /// A key that is none, or a value it does not take.
    #[error("{key}: {reason}")]
    Setting {
        /// The key.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A network cannot be had, or be changed like this.
    #[error("network {name}: {reason}")]
    Network {
        /// The network.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is no such profile.
    #[error("there is no profile {name}; `millstream profile list` shows those there are")]
    NoProfile {
        /// The name asked for.
        name: String,
    },
    /// A profile cannot be deleted.
    #[error("profile {name} stays: {reason}")]
    ProfileInUse {
        /// The profile.
        name: String,
        /// Why.
        reason: String,
    },
    /// A file of ours does not parse.
    #[error("{}: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is broken or could not be unpacked.
    #[error(transparent)]
    Image(#[from] millstream_image::Error),
}

fn console_text(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("; its console said:\n  {}", lines.join("\n  ")) }
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }
}
