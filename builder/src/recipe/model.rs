//! The definition as types. Names and meaning are distrobuilder's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }
    };
}

section! {
    /// A whole definition.
    Definition {
        /// What is built.
        image: Image,
        /// Where it comes from.
        source: SourceSection,
        /// What is made of it.
        targets: Targets,
        /// Files made or changed.
        files: Vec<FileEntry>,
        /// Packages installed or removed.
        packages: Packages,
        /// Scripts run inside.
        actions: Vec<Action>,
        /// Architecture names.
        mappings: Mappings,
        /// Variables of scripts.
        environment: Environment,
        /// Settings for the image index.
        simplestream: Simplestream,
    }
}

section! {
    /// `image`.
    Image {
        /// `debian`.
        distribution: String,
        /// `bookworm`.
        release: String,
        /// Debian's or the distribution's name.
        architecture: String,
        /// How long the image is good: `30d`.
        expiry: String,
        /// `default`.
        variant: String,
        /// Name in metadata.
        name: String,
        /// One line for lists.
        description: String,
        /// `YYYYMMDD_HHMM`.
        serial: String,
        /// The distribution's own name of the architecture; computed.
        architecture_mapped: String,
        /// The kernel's name; computed.
        architecture_kernel: String,
        /// `linux64` or `linux32`; computed.
        architecture_personality: String,
    }
}

section! {
    /// `source`.
    SourceSection {
        /// Which downloader.
        downloader: String,
        /// Mirror or archive.
        url: String,
        /// Keys or fingerprints the source must be signed with.
        keys: Vec<String>,
        /// Not used: keys come with the recipe or from `keys/`.
        keyserver: String,
        /// `minbase` and the like.
        variant: String,
        /// Suite, where it is not the release.
        suite: String,
        /// A release this one is bootstrapped like.
        same_as: String,
        /// Take what is not signed.
        skip_verification: bool,
        /// `main`.
        components: Vec<String>,
    }
}

section! {
    /// Limits an entry to some images; an empty list means all.
    Filter {
        /// Releases.
        releases: Vec<String>,
        /// Architectures, by the distribution's names.
        architectures: Vec<String>,
        /// Variants.
        variants: Vec<String>,
        /// `container`, `vm`.
        types: Vec<String>,
    }
}

section! {
    /// `targets`.
    Targets {
        /// For LXC.
        lxc: LxcTarget,
        /// For Incus.
        incus: VmTarget,
        /// For LXD.
        lxd: VmTarget,
        /// Kind of virtual-machine image.
        r#type: String,
    }
}

section! {
    /// `targets.lxc`.
    LxcTarget {
        /// Shown after `lxc-create`.
        create_message: String,
        /// Configuration snippets.
        config: Vec<LxcConfig>,
    }
}

section! {
    /// One snippet of `targets.lxc.config`.
    LxcConfig {
        /// `all`, `system` or `user`.
        r#type: String,
        /// Only for compatibility levels below this.
        before: u32,
        /// Only for compatibility levels above this.
        after: u32,
        /// The text.
        content: String,
        /// For which images.
        #[serde(flatten)]
        filter: Filter,
    }
}

section! {
    /// `targets.incus` and `targets.lxd`.
    VmTarget {
        /// Its disk.
        vm: Vm,
    }
}

section! {
    /// A virtual machine's disk.
    Vm {
        /// Bytes.
        size: u64,
        /// `ext4`, `btrfs`.
        filesystem: String,
    }
}

section! {
    /// One entry of `files`.
    FileEntry {
        /// What makes the file.
        generator: String,
        /// Where, inside.
        path: String,
        /// Its contents.
        content: String,
        /// Name of the template, or of the file to copy to.
        name: String,
        /// When and how the instance renders it.
        template: FileTemplate,
        /// Whether LXC replaces placeholders in it.
        templated: bool,
        /// Permission bits, octal.
        mode: String,
        /// Group number.
        gid: String,
        /// Owner number.
        uid: String,
        /// Whether the contents are a template.
        pongo: bool,
        /// File to copy, on the host.
        source: String,
        /// For which images.
        #[serde(flatten)]
        filter: Filter,
    }
}

section! {
    /// `files[].template`.
    FileTemplate {
        /// Values for the template.
        properties: BTreeMap<String, String>,
        /// Occasions.
        when: Vec<String>,
    }
}

section! {
    /// `packages`.
    Packages {
        /// Which manager.
        manager: String,
        /// A manager of the recipe's own.
        custom_manager: Option<Manager>,
        /// Update everything first.
        update: bool,
        /// Remove caches and what nothing needs.
        cleanup: bool,
        /// What to install and remove.
        sets: Vec<PackageSet>,
        /// Further sources.
        repositories: Vec<Repository>,
    }
}

section! {
    /// `packages.custom_manager`.
    Manager {
        /// Removes caches.
        clean: ManagerCommand,
        /// Installs.
        install: ManagerCommand,
        /// Removes.
        remove: ManagerCommand,
        /// Fetches indexes.
        refresh: ManagerCommand,
        /// Updates everything.
        update: ManagerCommand,
        /// Flags of every call.
        flags: Vec<String>,
    }
}

section! {
    /// One call of a custom manager.
    ManagerCommand {
        /// Program.
        cmd: String,
        /// Its flags.
        flags: Vec<String>,
    }
}

section! {
    /// One set of packages.
    PackageSet {
        /// Names.
        packages: Vec<String>,
        /// `install` or `remove`.
        action: String,
        /// Before the update rather than after it.
        early: bool,
        /// Flags of the manager.
        flags: Vec<String>,
        /// For which images.
        #[serde(flatten)]
        filter: Filter,
    }
}

section! {
    /// One further source of packages.
    Repository {
        /// File name.
        name: String,
        /// Lines of the source.
        url: String,
        /// Kind, for managers with several.
        r#type: String,
        /// Its key, armored.
        key: String,
        /// For which images.
        #[serde(flatten)]
        filter: Filter,
    }
}

section! {
    /// One script.
    Action {
        /// After which stage.
        trigger: String,
        /// The script with its `#!` line.
        action: String,
        /// Whether it is a template.
        pongo: bool,
        /// For which images.
        #[serde(flatten)]
        filter: Filter,
    }
}

section! {
    /// `mappings`.
    Mappings {
        /// Names by Debian's or the kernel's name.
        architectures: BTreeMap<String, String>,
        /// A known set of names.
        architecture_map: String,
    }
}

section! {
    /// `environment`.
    Environment {
        /// Start from nothing.
        clear_defaults: bool,
        /// Variables.
        variables: Vec<EnvVar>,
    }
}

section! {
    /// One variable.
    EnvVar {
        /// Name.
        key: String,
        /// Value.
        value: String,
        /// For which images.
        #[serde(flatten)]
        filter: Filter,
    }
}

section! {
    /// `simplestream`.
    Simplestream {
        /// The distribution as shown.
        distro_name: String,
        /// Other names of releases, comma-separated.
        release_aliases: BTreeMap<String, String>,
        /// What images ask of their host.
        requirements: Vec<Requirement>,
    }
}

section! {
    /// Requirements of some images.
    Requirement {
        /// Name and value.
        requirements: BTreeMap<String, String>,
        /// For which images.
        #[serde(flatten)]
        filter: Filter,
    }
}
