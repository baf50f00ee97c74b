//! Names that people give: of nodes, modules and networks.
//!
//! All three obey the rule of host names, so that they fit file names, units and addresses
//! without quoting. They are separate types so that one is never taken for another. A copy of a
//! name shares its text, for every input, effect and report carries some.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name accepted, in bytes: the limit of a host name's label.
const NAME_BYTES_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    /// The text that was offered.
    pub text: String,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a name: use 1 to {NAME_BYTES_MAX} lower-case letters, digits and `-`, \
             starting with a letter or digit",
            self.text
        )
    }
}

impl std::error::Error for InvalidName {}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the rule of names.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                if is_name(&text) { Ok(Self(text.into())) } else { Err(InvalidName { text }) }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A server of the cluster; by default its host name.
    NodeName
);
name!(
    /// A highly available application.
    ModuleName
);
name!(
    /// A network on which nodes have an address each.
    NetworkName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_of_host_names() {
        for good in ["a", "node1", "0-9", &"x".repeat(63)] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Node", "a.b", "a/b", "é", &"x".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }
}
