//! The error of this crate: which operation failed on which object, why, and what mends it.
//!
//! It does not classify errors as temporary or permanent; callers that retry look at the errno.

use std::io;
use std::net::IpAddr;

/// Why an operation on the network failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("cannot {operation} {object}: {source}{hint}", hint = hint(source))]
    Kernel {
        /// What was attempted, as a verb: `set up`.
        operation: &'static str,
        /// On what: `interface "eth0"`.
        object: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel answered something this program does not understand.
    #[error("cannot {operation} {object}: unexpected answer of the kernel ({answer})")]
    Answer {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        object: String,
        /// What was received.
        answer: String,
    },
    /// No interface has an address in the subnet of a virtual address.
    #[error(
        "no interface has an address in the subnet of {address}/{prefix}; there are {candidates}; \
         set `interface` of this [[vip]] or give one of them an address in that subnet"
    )]
    NoInterface {
        /// The virtual address.
        address: IpAddr,
        /// Its prefix length, in bits.
        prefix: u8,
        /// The interfaces with their addresses, in words.
        candidates: String,
    },
    /// The interface named in the configuration does not exist.
    #[error("interface \"{interface}\" of {address} does not exist; there are {candidates}")]
    UnknownInterface {
        /// The virtual address.
        address: IpAddr,
        /// The configured name.
        interface: String,
        /// The interfaces with their addresses, in words.
        candidates: String,
    },
    /// The interface of a virtual address cannot serve a farm.
    #[error("interface \"{interface}\" of {address} cannot be part of a farm: it lacks {lack}")]
    Unsuitable {
        /// The virtual address.
        address: IpAddr,
        /// Its interface.
        interface: String,
        /// What it would need.
        lack: &'static str,
    },
    /// The kernel was built without something, or a module of it cannot be loaded.
    #[error(
        "cannot {operation} {object}: this kernel lacks {features}; load the modules, or use a \
         kernel that is built with them"
    )]
    Missing {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        object: String,
        /// The features, with the names of their options.
        features: String,
    },
    /// A farm was told something that does not fit together.
    #[error("a farm's data path was told what does not fit together: {mistake}")]
    Farm {
        /// What it is.
        mistake: &'static str,
    },
    /// A virtual address that this node held is gone: expired or removed by somebody else.
    #[error(
        "{address} is no longer on interface \"{interface}\": it expired or somebody removed it; \
         it has to be taken again"
    )]
    Lost {
        /// The virtual address.
        address: IpAddr,
        /// Where it was.
        interface: String,
    },
}

impl Error {
    /// The errno behind the error, if the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            Self::Answer { .. }
            | Self::NoInterface { .. }
            | Self::UnknownInterface { .. }
            | Self::Unsuitable { .. }
            | Self::Missing { .. }
            | Self::Farm { .. }
            | Self::Lost { .. } => None,
        }
    }
}

/// Makes a converter of I/O errors, for `map_err`.
pub(crate) fn kernel<E: Into<io::Error>>(
    operation: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(E) -> Error {
    let object = object.into();
    move |source| Error::Kernel { operation, object, source: source.into() }
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; this needs root or the capability CAP_NET_ADMIN",
        Some(libc::EEXIST) => "; it exists already",
        Some(libc::ENODEV) => "; there is no such interface",
        Some(libc::EADDRNOTAVAIL) => "; the interface has no address to send from",
        Some(libc::ENETDOWN) => "; the interface is down",
        Some(libc::EOPNOTSUPP) => "; this kernel lacks the feature",
        _ => "",
    }
}
