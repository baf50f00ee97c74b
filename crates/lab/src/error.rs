//! The one error type of the lab. Every message names the place and, where there is one, the mend;
//! nothing here decides what to do about an error.

use std::io;
use std::path::PathBuf;

/// What can go wrong while a lab is built, broken or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces, mounts and loop devices need root.
    #[error("a lab needs root: it makes namespaces, mounts and loop devices; run it with sudo")]
    NotRoot,
    /// A program that the lab calls is not installed.
    #[error("{program} is not installed; install the package {package}")]
    Missing {
        /// Name of the program.
        program: String,
        /// Debian package that brings it.
        package: String,
    },
    /// The kernel offers no loop devices.
    #[error("/dev/loop-control cannot be opened ({0}); load the kernel module with: modprobe loop")]
    NoLoop(io::Error),
    /// The machine has no cgroup version 2 hierarchy.
    #[error(
        "{0} needs cgroup version 2, which is not mounted; mount -t cgroup2 none /sys/fs/cgroup"
    )]
    NoCgroup(&'static str),
    /// What the caller asked for makes no lab.
    #[error("{0}")]
    Invalid(String),
    /// No lab of that name exists.
    #[error("there is no lab {name} in {base}; `evenkeel lab list` shows those that exist")]
    NoLab {
        /// The name asked for.
        name: String,
        /// The directory that holds all labs.
        base: String,
    },
    /// A lab of that name is alive.
    #[error("the lab {name} is in use{owner}; choose another name or end that one first")]
    InUse {
        /// The name asked for.
        name: String,
        /// Who uses it, ready to print; may be empty.
        owner: String,
    },
    /// The host is not running.
    #[error("the host {0} is down; `evenkeel lab start` boots it")]
    Down(String),
    /// A host could not be booted.
    #[error("the host {host} did not start: {message}")]
    Boot {
        /// Name of the host.
        host: String,
        /// What its init reported, or the end of its log.
        message: String,
    },
    /// The init of a host refused a request.
    #[error("the host {host} refused: {message}")]
    Refused {
        /// Name of the host.
        host: String,
        /// What its init said.
        message: String,
    },
    /// Something that ends by itself did not end in time.
    #[error("{what} did not happen within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        seconds: u64,
    },
    /// An operation of the network failed.
    #[error("{what}: {message}")]
    Network {
        /// What was attempted, with the names of host and network.
        what: String,
        /// What the kernel or the library said.
        message: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was attempted when a system call fails.
pub(crate) trait During<T> {
    /// Turns the system's error into one that names the place.
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io { what: what(), source: error.into() })
    }
}

/// `cannot VERB PATH`, the usual form.
pub(crate) fn cannot(verb: &str, path: &std::path::Path) -> String {
    format!("cannot {verb} {}", PathBuf::from(path).display())
}
