//! The package managers known, as data. Commands and flags are distrobuilder's; what each needs
//! besides to work inside a build stands in its prelude.

/// How a manager learns of a further repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// `/etc/apt`: `sources.list`, `*.list` and `*.sources`; keys in `trusted.gpg.d`.
    Apt,
    /// Lines of `/etc/apk/repositories`, keys in `/etc/apk/keys`.
    Apk,
    /// Sections in a directory of `.repo` files; `rpm --import` for keys.
    Rpm { directory: &'static str },
    /// `zypper addrepo`, or sections in `/etc/zypp/repos.d`.
    Zypper,
    /// Sections included from `/etc/pacman.conf`.
    Pacman,
    /// A file for each: directory, ending, and what a line with nothing but a URL becomes, with
    /// `NAME` and `URL` in it.
    File { directory: &'static str, ending: &'static str, line: &'static str },
    /// Lines of one file.
    Lines { file: &'static str },
    /// `equo repo add`, `enman add`.
    Equo,
}

/// Shell commands of one manager; empty where it has none.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    /// Runs before the commands of every script.
    pub(super) prelude: &'static str,
    pub(super) refresh: &'static str,
    pub(super) update: &'static str,
    pub(super) install: &'static str,
    pub(super) remove: &'static str,
    pub(super) clean: &'static str,
    pub(super) sources: Sources,
}

/// Every call of apt: nothing is asked, and configuration files of packages win, since nobody has
/// changed them.
macro_rules! apt {
    ($command:literal) => {
        concat!(
            "apt-get -y -q -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true ",
            "-o Acquire::Languages=none -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confnew ",
            $command
        )
    };
}

/// Portage isolates every build step by means a build in namespaces may not have.
const PORTAGE: &str = "export FEATURES=\"${FEATURES-} -ipc-sandbox -mount-sandbox -network-sandbox \
                       -pid-sandbox -sandbox -usersandbox\"";

/// pacman counts the space on mount points it cannot see here, and since version 7 downloads as
/// another user in a sandbox of its own. Neither changes what is installed, so both are left out,
/// for this script alone.
const PACMAN: &str = "sed -e 's/^[[:space:]]*CheckSpace/#&/' -e 's/^[[:space:]]*DownloadUser/#&/' \
                      /etc/pacman.conf > /run/pacman.conf\n\
                      if [ ! -d /etc/pacman.d/gnupg ] && ls /usr/share/pacman/keyrings/*.gpg > /dev/null 2>&1; then\n\
                      \tpacman-key --init\n\
                      \tpacman-key --populate\n\
                      fi";

/// What the flags of yum's version are called.
const YUM: &str = "help=$(yum --help 2>&1) || true\n\
                   erase= nobest=\n\
                   case \"$help\" in *--allowerasing*) erase=--allowerasing;; esac\n\
                   case \"$help\" in *--nobest*) nobest=--nobest;; esac";

/// Some statuses of zypper are news rather than failures: 102 asks for a reboot, 103 says that
/// zypper itself was updated and wants to be called again.
const ZYPPER: &str = "zypper() {\n\
                      \tcode=0\n\
                      \tcommand zypper --non-interactive --gpg-auto-import-keys \"$@\" || code=$?\n\
                      \tcase $code in\n\
                      \t0|102) ;;\n\
                      \t103) command zypper --non-interactive --gpg-auto-import-keys \"$@\" ;;\n\
                      \t*) return $code ;;\n\
                      \tesac\n\
                      }";

pub(super) const KNOWN: &[Known] = &[
    Known {
        name: "anise",
        prelude: "",
        refresh: "anise repo update --force",
        update: "anise upgrade --sync-repos --skip-config-protect",
        install: "anise install --skip-config-protect",
        remove: "anise uninstall --skip-config-protect",
        clean: "anise cleanup --purge-repos",
        sources: Sources::File { directory: "/etc/anise/repos.conf.d", ending: ".yml", line: "" },
    },
    Known {
        name: "apk",
        prelude: "",
        refresh: "apk --no-cache update",
        update: "apk --no-cache upgrade",
        install: "apk --no-cache add",
        remove: "apk --no-cache del --rdepends",
        clean: "",
        sources: Sources::Apk,
    },
    Known {
        name: "apt",
        prelude: "",
        refresh: apt!("update"),
        update: apt!("dist-upgrade"),
        install: apt!("install"),
        remove: apt!("remove --auto-remove"),
        // The archives belong to the builder, which keeps them for the next build.
        clean: "",
        sources: Sources::Apt,
    },
    Known {
        name: "dnf",
        prelude: "",
        refresh: "dnf -y makecache",
        update: "dnf -y upgrade --nobest",
        install: "dnf -y install --nobest",
        remove: "dnf -y remove",
        clean: "dnf -y clean all",
        sources: Sources::Rpm { directory: "/etc/yum.repos.d" },
    },
    Known {
        name: "egoportage",
        prelude: PORTAGE,
        refresh: "ego sync",
        update: "emerge --update @world",
        install: "emerge --autounmask-continue --quiet-build=y",
        remove: "emerge --unmerge",
        clean: "",
        sources: Sources::File { directory: "/etc/portage/repos.conf", ending: ".conf", line: "" },
    },
    Known {
        name: "equo",
        prelude: "",
        refresh: "equo update",
        update: "equo upgrade",
        install: "equo install",
        remove: "equo remove",
        clean: "equo cleanup",
        sources: Sources::Equo,
    },
    // What anise was called before.
    Known {
        name: "luet",
        prelude: "",
        refresh: "luet repo update --force",
        update: "luet upgrade --sync-repos --skip-config-protect",
        install: "luet install --skip-config-protect",
        remove: "luet uninstall --skip-config-protect",
        clean: "luet cleanup --purge-repos",
        sources: Sources::File { directory: "/etc/luet/repos.conf.d", ending: ".yml", line: "" },
    },
    Known {
        name: "opkg",
        // Its lock lies where a link may lead into a fresh /run or /tmp.
        prelude: "mkdir -p \"$(readlink -f /var/lock)\"",
        refresh: "opkg update",
        // opkg can only update single packages by name.
        update: "",
        install: "opkg install",
        remove: "opkg remove",
        clean: "rm -rf /tmp/opkg-lists",
        sources: Sources::File { directory: "/etc/opkg", ending: ".conf", line: "src/gz NAME URL" },
    },
    Known {
        name: "pacman",
        prelude: PACMAN,
        refresh: "pacman --config /run/pacman.conf --noconfirm -Syy",
        update: "pacman --config /run/pacman.conf --noconfirm -Su",
        install: "pacman --config /run/pacman.conf --noconfirm -S --needed",
        remove: "pacman --config /run/pacman.conf --noconfirm -Rcs",
        clean: "pacman --config /run/pacman.conf --noconfirm -Sc",
        sources: Sources::Pacman,
    },
    Known {
        name: "portage",
        prelude: PORTAGE,
        // A recipe fetches the tree itself, by the way it likes.
        refresh: "",
        update: "emerge --update @world",
        install: "emerge --autounmask-continue",
        remove: "emerge --unmerge",
        clean: "",
        sources: Sources::File { directory: "/etc/portage/repos.conf", ending: ".conf", line: "" },
    },
    Known {
        name: "slackpkg",
        prelude: "",
        refresh: "slackpkg -batch=on -default_answer=y update",
        // Like distrobuilder: an upgrade would ask about every changed configuration file.
        update: "",
        install: "slackpkg -batch=on -default_answer=y install",
        remove: "slackpkg -batch=on -default_answer=y remove",
        clean: "",
        sources: Sources::Lines { file: "/etc/slackpkg/mirrors" },
    },
    Known {
        name: "xbps",
        prelude: "",
        refresh: "xbps-install --sync",
        // The first may update nothing but xbps itself.
        update: "xbps-install --yes --update\nxbps-install --yes --update",
        install: "xbps-install --yes",
        remove: "xbps-remove --yes --recursive --remove-orphans",
        clean: "xbps-remove --yes --clean-cache",
        sources: Sources::File { directory: "/etc/xbps.d", ending: ".conf", line: "repository=URL" },
    },
    Known {
        name: "yum",
        prelude: YUM,
        refresh: "yum -y $erase makecache",
        update: "yum -y $erase update $nobest",
        install: "yum -y $erase install",
        remove: "yum -y $erase remove",
        clean: "yum -y $erase clean all",
        sources: Sources::Rpm { directory: "/etc/yum.repos.d" },
    },
    Known {
        name: "zypper",
        prelude: ZYPPER,
        refresh: "zypper refresh",
        update: "zypper update",
        install: "zypper install --allow-downgrade --replacefiles",
        remove: "zypper remove",
        clean: "zypper clean -a",
        sources: Sources::Zypper,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_recipe_languages() {
        let known: Vec<_> = KNOWN.iter().map(|manager| manager.name).collect();
        assert_eq!(known, crate::recipe::MANAGERS);
    }
}
