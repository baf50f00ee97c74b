//! The cluster's key and what is sealed under it: heartbeats.
//!
//! Each datagram has a key of its own, derived from the cluster's and a salt that travels with it:
//! random but for the sender's count of datagrams. So no nonce has to be remembered over restarts,
//! boots or restored snapshots, and a receiver that cannot read what is said still sees the order
//! of a session. Whether a datagram is a new one is not judged here.

use std::fs;
use std::io;
use std::path::Path;

use crate::keys;
use model::{ModuleName, NodeName};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};
use ring::rand::{SecureRandom, SystemRandom};
use wire::datagram::{SALT_BYTES, put_sealed, take_sealed};

/// Bytes of a cluster's key.
const KEY_BYTES: usize = 32;
/// Keys that a file may hold: the one in use, and others during a change.
const KEYS_MAX: usize = 4;
const FILE_BYTES_MAX: u64 = 4096;
/// What a salt begins with that holds a count. Those of earlier versions are random altogether.
const COUNTED: [u8; 4] = *b"EVKC";
const PURPOSE: &[u8] = b"evenkeel heartbeat 1";

/// The cluster's key, and those that are still or already accepted while it is changed.
pub(crate) struct ClusterKey {
    /// The first one seals.
    keys: Vec<Prk>,
}

/// What was opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) bytes: Vec<u8>,
    /// The how-manieth datagram of its sender's daemon it is; none from an earlier version.
    pub(crate) count: Option<u64>,
}

/// From whom to whom something is sealed: opened as anything else, it is not whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) cluster: &'a ModuleName,
    pub(crate) from: &'a NodeName,
    pub(crate) to: &'a NodeName,
}

/// A new key, as its file has it.
pub(crate) fn new_key() -> io::Result<String> {
    let key: [u8; KEY_BYTES] = random()?;
    Ok(format!("{}\n", hex(&key)))
}

/// Unpredictable bytes.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("there is no randomness to be had"))?;
    Ok(bytes)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl ClusterKey {
    /// Reads a file of keys, one a line, as hexadecimal digits.
    pub(crate) fn read(path: &Path) -> io::Result<ClusterKey> {
        keys::check_private(path)?;
        if fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("it is too long to be a file of keys"));
        }
        ClusterKey::parse(&fs::read_to_string(path)?)
    }

    /// Reads the keys of a text.
    pub(crate) fn parse(text: &str) -> io::Result<ClusterKey> {
        let mut keys = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let bytes: [u8; KEY_BYTES] = from_hex(line).ok_or_else(|| {
                let digits = 2 * KEY_BYTES;
                io::Error::other(format!("a line is not a key, which has {digits} hex digits"))
            })?;
            keys.push(Prk::new_less_safe(HKDF_SHA256, &bytes));
        }
        match keys.len() {
            0 => Err(io::Error::other("it holds no key")),
            1..=KEYS_MAX => Ok(ClusterKey { keys }),
            many => Err(io::Error::other(format!("it holds {many} keys, more than {KEYS_MAX}"))),
        }
    }

    /// Seals bytes for one receiver, as the datagram with this number.
    pub(crate) fn seal(
        &self,
        route: Route<'_>,
        count: u64,
        mut bytes: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let salt = salt_of(count)?;
        let key = self.keys.first().ok_or(io::ErrorKind::NotFound)?;
        let key = derived(key, &salt)?;
        key.seal_in_place_append_tag(nonce(), Aad::from(route.bytes()), &mut bytes)
            .map_err(|_| io::Error::other("the bytes cannot be sealed"))?;
        put_sealed(&salt, &bytes).map_err(io::Error::other)
    }

    /// Opens what was sealed for this route under any of the keys.
    pub(crate) fn open(&self, route: Route<'_>, datagram: &[u8]) -> Option<Opened> {
        let (salt, sealed) = take_sealed(datagram).ok()?;
        self.keys.iter().find_map(|key| {
            let mut bytes = sealed.to_vec();
            let key = derived(key, salt).ok()?;
            let whole = key.open_in_place(nonce(), Aad::from(route.bytes()), &mut bytes).ok()?;
            Some(Opened { bytes: whole.to_vec(), count: count_of(salt) })
        })
    }
}

impl Route<'_> {
    /// Names cannot contain a zero, so no two routes are the same bytes.
    fn bytes(self) -> Vec<u8> {
        [self.cluster.as_str(), self.from.as_str(), self.to.as_str()].join("\0").into_bytes()
    }
}

fn derived(key: &Prk, salt: &[u8; SALT_BYTES]) -> io::Result<LessSafeKey> {
    let info = [PURPOSE, salt];
    let okm = key.expand(&info, &CHACHA20_POLY1305);
    let okm = okm.map_err(|_| io::Error::other("no key can be derived"))?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

/// A salt that nobody has used before, with a count that cannot be changed, as a key comes of it.
fn salt_of(count: u64) -> io::Result<[u8; SALT_BYTES]> {
    let mut salt: [u8; SALT_BYTES] = random()?;
    let counted = COUNTED.into_iter().chain(count.to_le_bytes());
    salt.iter_mut().zip(counted).for_each(|(byte, counted)| *byte = counted);
    Ok(salt)
}

fn count_of(salt: &[u8; SALT_BYTES]) -> Option<u64> {
    let (count, _) = salt.strip_prefix(&COUNTED)?.split_first_chunk()?;
    Some(u64::from_le_bytes(*count))
}

/// Each key seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (ModuleName, NodeName, NodeName) {
        let node = |name| NodeName::new(name).unwrap();
        (ModuleName::new("demo").unwrap(), node("node1"), node("node2"))
    }

    fn key(digit: char) -> String {
        digit.to_string().repeat(2 * KEY_BYTES)
    }

    #[test]
    fn only_what_is_whole_and_meant_for_this_route_is_opened() {
        let (cluster, from, to) = names();
        let route = Route { cluster: &cluster, from: &from, to: &to };
        let ours = ClusterKey::parse(&new_key().unwrap()).unwrap();
        let sealed = ours.seal(route, 258, b"hello".to_vec()).unwrap();
        let opened = Opened { bytes: b"hello".to_vec(), count: Some(258) };
        assert_eq!(ours.open(route, &sealed), Some(opened));
        let back = Route { from: &to, to: &from, ..route };
        assert!(ours.open(back, &sealed).is_none(), "the other direction");
        let other = ModuleName::new("other").unwrap();
        assert!(ours.open(Route { cluster: &other, ..route }, &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ours.open(route, &changed).is_none(), "byte {at}");
            assert!(ours.open(route, &sealed[..at]).is_none(), "cut at {at}");
        }
        let theirs = ClusterKey::parse(&key('a')).unwrap();
        assert!(theirs.open(route, &sealed).is_none(), "another key");
        let again = ours.seal(route, 258, b"hello".to_vec()).unwrap();
        assert_ne!(sealed, again, "each datagram has a key of its own");
    }

    #[test]
    fn a_salt_of_an_earlier_version_has_no_count() {
        assert_eq!(count_of(&[7; SALT_BYTES]), None);
        let salts = [salt_of(u64::MAX).unwrap(), salt_of(u64::MAX).unwrap()];
        assert_eq!(salts.map(|salt| count_of(&salt)), [Some(u64::MAX); 2]);
        assert_ne!(salts[0], salts[1], "the rest of it is random");
    }

    #[test]
    fn while_a_key_is_changed_both_are_understood() {
        let (cluster, from, to) = names();
        let route = Route { cluster: &cluster, from: &from, to: &to };
        let [old, new] = ['a', 'b'].map(|digit| ClusterKey::parse(&key(digit)).unwrap());
        let both = ClusterKey::parse(&format!("{}\n{}\n", key('b'), key('a'))).unwrap();
        for one in [&old, &new] {
            let sealed = one.seal(route, 1, vec![1]).unwrap();
            assert!(both.open(route, &sealed).is_some());
        }
        let sealed = both.seal(route, 1, vec![1]).unwrap();
        assert!(new.open(route, &sealed).is_some() && old.open(route, &sealed).is_none());
    }

    #[test]
    fn what_is_no_file_of_keys_is_refused() {
        let wrong = |text: &str| ClusterKey::parse(text).err().unwrap().to_string();
        assert_eq!(wrong("\n \n"), "it holds no key");
        assert!(wrong("abc").contains("64 hex digits"));
        assert!(wrong(&key('g')).contains("64 hex digits"));
        assert!(wrong(&"é".repeat(KEY_BYTES)).contains("64 hex digits"));
        assert!(wrong(&format!("{}\n", key('a')).repeat(KEYS_MAX + 1)).contains("5 keys"));
    }
}
