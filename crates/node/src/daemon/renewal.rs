//! A node's certificate is made anew long before it ends, for the key that the node has: one file
//! is replaced, and every connection from then on shows the new one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::{NodeName, Time};
use serde_json::{Value, json};

use crate::authority::{Authority, VALID_FOR};
use crate::clock;
use crate::durable;
use crate::keys::{CERTIFICATE_FILE, KEY_FILE, Keys};
use crate::validity;

/// How often the certificate is looked at.
const PAUSE: Duration = Duration::from_secs(3600);

/// The keeper of a node's certificate.
pub(super) struct Renewal {
    directory: PathBuf,
    keys: Keys,
    node: NodeName,
    looked: Option<Time>,
    ends: Option<Duration>,
    error: Option<String>,
}

impl Renewal {
    pub(super) fn new(directory: &Path, node: &NodeName) -> Renewal {
        let (directory, node) = (directory.to_owned(), node.clone());
        let keys = Keys::new(&directory);
        Renewal { directory, keys, node, looked: None, ends: None, error: None }
    }

    /// Looks at the certificate now and then, and renews it in the last third of its time.
    pub(super) fn keep(&mut self, now: Time) {
        if !self.keys.exist() || self.looked.is_some_and(|at| now.since(at) < PAUSE) {
            return;
        }
        self.looked = Some(now);
        self.error = self.look(clock::wall()).err().map(|error| error.to_string());
        if let Some(error) = &self.error {
            eprintln!("! this node's certificate cannot be renewed: {error}");
        }
    }

    /// For the status.
    pub(super) fn status(&self) -> Value {
        let left = self.ends.map(|ends| ends.saturating_sub(clock::wall()).as_secs() / 86_400);
        json!({ "days_left": left, "error": self.error })
    }

    fn look(&mut self, wall: Duration) -> std::io::Result<()> {
        self.ends = validity::ends(&self.keys.own()?);
        let left = self.ends.map(|ends| ends.saturating_sub(wall));
        if left.is_some_and(|left| left > VALID_FOR / 3) {
            return Ok(());
        }
        let authority = Authority::load(&self.directory)?;
        let renewed = authority.renew(&self.node, &self.directory.join(KEY_FILE), wall)?;
        durable::write_secret(&self.directory.join(CERTIFICATE_FILE), &renewed)?;
        self.ends = validity::ends(&self.keys.own()?);
        eprintln!("this node's certificate was renewed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_its_last_third() {
        let unique = clock::random();
        let directory = std::env::temp_dir().join(format!("evenkeel-renewal-{unique:x}"));
        let node = NodeName::new("node1").unwrap();
        let authority = Authority::new("demo").unwrap();
        authority.furnish_with_authority(&node, &directory).unwrap();
        let mut renewal = Renewal::new(&directory, &node);
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
