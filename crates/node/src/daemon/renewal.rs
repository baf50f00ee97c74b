//! A node's certificate is made anew long before it ends, for the key that the node has: one file
//! is replaced, and every connection from then on shows the new one.
//!
//! One that others would not accept never replaces one that they would. A clock that is wrong for a
//! while makes certificates of that time; the next look after it is right makes a good one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{NodeName, Time};
use serde_json::{Value, json};

use crate::authority::{Authority, VALID_FOR};
use crate::clock;
use crate::durable;
use crate::keys::{CERTIFICATE_FILE, KEY_FILE, Keys};
use crate::validity::{self, Validity};

/// How often the certificate is looked at: so long nobody is spoken with after a wrong clock.
const PAUSE: Duration = Duration::from_secs(60);

/// The keeper of a node's certificate.
pub(super) struct Renewal {
    directory: PathBuf,
    keys: Keys,
    node: NodeName,
    looked: Option<Time>,
    counts: Option<Validity>,
    error: Option<String>,
}

impl Renewal {
    pub(super) fn new(directory: &Path, node: &NodeName) -> Renewal {
        let (directory, node) = (directory.to_owned(), node.clone());
        let keys = Keys::new(&directory);
        Renewal { directory, keys, node, looked: None, counts: None, error: None }
    }

    /// Looks at the certificate now and then, and renews it in the last third of its time.
    pub(super) fn keep(&mut self, now: Time) {
        if !self.keys.exist() || self.looked.is_some_and(|at| now.since(at) < PAUSE) {
            return;
        }
        self.looked = Some(now);
        let error = self.look(clock::wall()).err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|error| self.error.as_ref() != Some(*error)) {
            eprintln!("! this node's certificate cannot be renewed: {error}");
        }
        self.error = error;
    }

    /// For the status.
    pub(super) fn status(&self) -> Value {
        let left = self.counts.map(|counts| counts.ends.saturating_sub(clock::wall()));
        let left = left.map(|left| left.as_secs() / 86_400);
        json!({ "days_left": left, "error": self.error })
    }

    fn look(&mut self, wall: Duration) -> std::io::Result<()> {
        self.counts = validity::of(&self.keys.own()?);
        let good = |counts: Validity| {
            counts.begins <= wall && counts.ends.saturating_sub(wall) > VALID_FOR / 3
        };
        if self.counts.is_some_and(good) {
            return Ok(());
        }
        let authority = Authority::load(&self.directory)?;
        let renewed = authority.renew(&self.node, &self.directory.join(KEY_FILE), wall)?;
        self.keys.would_do(&renewed, &self.node, wall)?;
        durable::write_secret(&self.directory.join(CERTIFICATE_FILE), &renewed)?;
        self.counts = validity::of(&self.keys.own()?);
        eprintln!("this node's certificate was renewed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn furnished() -> (PathBuf, NodeName, Renewal) {
        let unique = clock::random();
        let directory = std::env::temp_dir().join(format!("evenkeel-renewal-{unique:x}"));
        let node = NodeName::new("node1").unwrap();
        let authority = Authority::new("demo").unwrap();
        authority.furnish_with_authority(&node, &directory).unwrap();
        let renewal = Renewal::new(&directory, &node);
        (directory, node, renewal)
    }

    #[test]
    fn a_wrong_clock_and_a_wrong_authority_are_outlived() {
        let (directory, node, mut renewal) = furnished();
        let now = clock::wall();
        let year = VALID_FOR;
        // The clock is years behind, then years ahead, and then right.
        for wall in [now - 2 * year, now + 3 * year, now] {
            renewal.look(wall).unwrap();
            let counts = renewal.counts.unwrap();
            assert!(counts.begins <= wall && counts.ends > wall + year / 2, "{counts:?}");
            assert_eq!(validity::of(&renewal.keys.own().unwrap()), Some(counts));
            let certificate = directory.join(CERTIFICATE_FILE);
            let certificate = std::fs::read_to_string(certificate).unwrap();
            renewal.keys.would_do(&certificate, &node, wall).unwrap();
            let other = NodeName::new("node2").unwrap();
            renewal.keys.would_do(&certificate, &other, wall).unwrap_err();
            renewal.keys.would_do(&certificate, &node, wall + 2 * year).unwrap_err();
        }
        // A key of another authority, although of the same name, signs nothing that others accept.
        let good = renewal.keys.own().unwrap();
        let key = directory.join("ca.key");
        let right = std::fs::read_to_string(&key).unwrap();
        let other = directory.join("other");
        Authority::new("demo").unwrap().furnish_with_authority(&node, &other).unwrap();
        std::fs::copy(other.join("ca.key"), &key).unwrap();
        let late = now + year * 3 / 4;
        let error = renewal.look(late).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
        assert_eq!(renewal.keys.own().unwrap(), good, "the old one stays");
        durable::write_secret(&key, &right).unwrap();
        renewal.look(late).unwrap();
        assert_ne!(renewal.keys.own().unwrap(), good);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_certificate_is_renewed_in_its_last_third() {
        let (directory, node, mut renewal) = furnished();
        let first = renewal.keys.own().unwrap();
        let now = clock::wall();
        renewal.look(now + VALID_FOR / 2).unwrap();
        assert_eq!(renewal.keys.own().unwrap(), first, "it is good for long");
        renewal.look(now + VALID_FOR * 3 / 4).unwrap();
        let second = renewal.keys.own().unwrap();
        assert_ne!(second, first);
        crate::keys::check(&directory, &node).unwrap();
        let days = renewal.status()["days_left"].as_u64().unwrap();
        assert!(days > 365 + 270, "it counts from when it was renewed: {days}");
        std::fs::remove_file(directory.join("ca.key")).unwrap();
        let error = renewal.look(now + VALID_FOR * 3 / 2).unwrap_err().to_string();
        assert!(error.contains("ca.key"), "{error}");
        assert_eq!(renewal.keys.own().unwrap(), second, "the old one stays");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
