//! A copy of a module as a list of its objects, page by page: what nodes show of two copies that
//! went apart. What differs between two lists is not known here.
//!
//! A page is part of a reply of the control protocol, and comes from another machine: whoever reads
//! it checks that it goes on behind what was asked for, and that it is no longer than that.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{ModuleName, NodeName};
use serde::{Deserialize, Serialize};

use crate::frame::WireError;

/// Most objects on a page.
pub const PAGE_OBJECTS_MAX: usize = 2000;
/// Once a page has so many bytes of names, it is full.
pub const PAGE_BYTES_MAX: usize = 256 << 10;
/// Longest path that is listed, in bytes.
pub const PATH_BYTES_MAX: usize = 64 << 10;

/// Where an object is: the number of the replicated directory, and the names that lead to it.
/// Objects are listed in this order, so that what a directory holds comes behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the replicated directory.
    pub tree: u16,
    /// Names, from there on.
    pub names: Vec<Vec<u8>>,
}

/// Asks a node for a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageAsked {
    /// Module.
    pub module: ModuleName,
    /// Node; this one when absent.
    pub node: Option<NodeName>,
    /// Number of the replicated directory that is listed.
    pub tree: u16,
    /// The path behind which the page begins; the directory itself comes first when absent.
    pub after: Option<String>,
}

/// A part of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Objects, in order.
    pub objects: Vec<Listed>,
    /// Whether there are more of them in this directory.
    pub more: bool,
    /// When this node took up its newest epochs, by the beginning of their ids, since 1970.
    pub epochs: BTreeMap<String, Duration>,
}

/// An object of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its path below the replicated directory; empty for that directory itself.
    pub path: String,
    /// Type and permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// Number of a device.
    pub device: u64,
    /// When its content was changed, since 1970, in nanoseconds.
    pub modified: i64,
    /// When anything of it was changed on its node, since 1970, in nanoseconds.
    pub changed: i64,
    /// Where a symbolic link leads.
    pub target: Option<String>,
}

/// Bytes of a file name or a path as text that can be turned back: what is no printable ASCII, and
/// the backslash, becomes `\xNN`, but for valid UTF-8.
#[must_use]
pub fn spell(bytes: &[u8]) -> String {
    let mut spelt = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                let mut utf8 = [0; 4];
                let bytes = character.encode_utf8(&mut utf8).as_bytes();
                bytes.iter().for_each(|byte| spelt += &format!("\\x{byte:02x}"));
            } else {
                spelt.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| spelt += &format!("\\x{byte:02x}"));
    }
    spelt
}

/// The bytes of what was spelt.
///
/// # Errors
/// It was not.
pub fn unspell(text: &str) -> Result<Vec<u8>, WireError> {
    let wrong = WireError::Value("spelt name");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.strip_prefix('x').and_then(|after| after.get(..2));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| wrong.clone())?);
        rest = after.get(3..).ok_or_else(|| wrong.clone())?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

impl Place {
    /// The place of a path of a page.
    ///
    /// # Errors
    /// It is none, or leads elsewhere.
    pub fn of(tree: u16, path: &str) -> Result<Place, WireError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(WireError::Length(path.len()));
        }
        if path.is_empty() {
            return Ok(Place { tree, names: Vec::new() });
        }
        let bytes = unspell(path)?;
        let names: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let good = |name: &Vec<u8>| {
            !name.is_empty() && name != b"." && name != b".." && !name.contains(&0)
        };
        if !names.iter().all(good) {
            return Err(WireError::Value("path"));
        }
        Ok(Place { tree, names })
    }

    /// The path, as a page has it.
    #[must_use]
    pub fn path(&self) -> String {
        spell(&self.names.join(&b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_spelt_and_read_again() {
        for bytes in [&b"plain"[..], b"a b\\c", b"\xff\xfe\n", "ä/ü".as_bytes(), b"\\x41", b""] {
            assert_eq!(unspell(&spell(bytes)).unwrap(), bytes);
            assert!(!spell(bytes).contains(char::is_control), "{bytes:?}");
        }
        for wrong in ["\\", "\\x", "\\x4", "\\xzz", "\\y41", "a\\x1ä"] {
            assert!(unspell(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_are_in_the_order_of_a_walk_and_lead_nowhere_else() {
        let places = ["", "a", "a/b", "a/b/c", "a-", "b"].map(|path| Place::of(0, path).unwrap());
        assert!(places.is_sorted());
        assert_eq!(places[3].path(), "a/b/c");
        assert!(Place::of(1, "").unwrap() > places[5]);
        for wrong in ["/", "/a", "a/", "a//b", "..", "a/../b", ".", "a\\x00", "\\x2f"] {
            assert!(Place::of(0, wrong).is_err(), "{wrong}");
        }
        assert!(Place::of(0, &"a".repeat(PATH_BYTES_MAX + 1)).is_err());
    }
}
