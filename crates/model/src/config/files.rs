//! A configuration as the files that it consists of, and where it stands among others.
//!
//! What the files mean is the readers' beside this; reading and writing them is the shell's work.
//! What comes from elsewhere is checked here before any of it becomes the name of a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Fingerprint;

/// Most files of a configuration.
pub const FILES_MAX: usize = 256;
/// Longest file, in bytes.
pub const FILE_BYTES_MAX: usize = 128 << 10;
/// Longest files together, in bytes: what one message between nodes can carry.
pub const FILES_BYTES_MAX: usize = 256 << 10;
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 255;

/// Name of the cluster's file.
pub const CLUSTER_FILE: &str = "cluster.toml";
/// Before this is the directory of the modules' files.
pub const MODULES: &str = "modules/";

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its text.
    pub text: String,
    /// Whether it can be run, as a script.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// The files of a configuration, by their paths below its directory: `cluster.toml`,
/// `modules/NAME.toml` and what lies in `modules/NAME/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Files(pub BTreeMap<String, Content>);

/// Which configuration of how many, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stand {
    /// Its number; 0 as long as none was applied.
    pub number: u64,
    /// Digest of its files.
    pub digest: Fingerprint,
}

impl Default for Stand {
    fn default() -> Self {
        Stand { number: 0, digest: Fingerprint([0; 32]) }
    }
}

impl Files {
    /// A digest of all files.
    #[must_use]
    pub fn digest(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        for (path, digest) in self.digests() {
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            hasher.update(&digest.0);
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }

    /// A digest of each file.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<String, Fingerprint> {
        self.0.iter().map(|(path, content)| (path.clone(), content.digest())).collect()
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(|content| content.text.as_str())
    }

    /// The files of modules, which say what a module is.
    pub fn module_files(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter().map(|(path, content)| (path.as_str(), content.text.as_str()));
        all.filter(|(path, _)| is_module_file(path))
    }

    /// Whether these can be the files of a configuration.
    ///
    /// # Errors
    /// What is too much or no name for such a file.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > FILES_MAX {
            return Err(format!("there are more than {FILES_MAX} files"));
        }
        let mut whole = 0;
        for (path, content) in &self.0 {
            check_path(path)?;
            if content.text.len() > FILE_BYTES_MAX {
                return Err(format!("{path} is longer than {} KiB", FILE_BYTES_MAX >> 10));
            }
            let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t' | '\r');
            if content.text.contains(odd) {
                return Err(format!("{path} is no text; keep it elsewhere"));
            }
            whole += path.len() + content.text.len();
        }
        if whole > FILES_BYTES_MAX {
            return Err(format!("the files are longer than {} KiB", FILES_BYTES_MAX >> 10));
        }
        let mut paths = self.0.keys();
        let inside =
            |path: &&String| self.0.range(format!("{path}/")..format!("{path}0")).count() > 0;
        match paths.find(inside) {
            Some(path) => Err(format!("{path} is both a file and a directory")),
            None => Ok(()),
        }
    }
}

impl Content {
    fn digest(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::from(self.executable)]);
        hasher.update(self.text.as_bytes());
        Fingerprint(*hasher.finalize().as_bytes())
    }
}

/// Whether a path is that of a module's own file.
#[must_use]
pub fn is_module_file(path: &str) -> bool {
    let name = path.strip_prefix(MODULES).and_then(|rest| rest.strip_suffix(".toml"));
    name.is_some_and(|name| !name.contains('/'))
}

fn check_path(path: &str) -> Result<(), String> {
    let below = path.strip_prefix(MODULES).unwrap_or_default();
    let parts = || below.split('/');
    let good = |part: &str| !part.is_empty() && !part.starts_with('.');
    let in_directory = parts().count() > 1 || is_module_file(path);
    let fits = path.len() <= PATH_BYTES_MAX && !path.contains(char::is_control);
    if fits && (path == CLUSTER_FILE || (in_directory && parts().all(good))) {
        return Ok(());
    }
    Err(format!("{path:?} is no name of a file of the configuration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Files {
        let content = Content { text: "a".to_owned(), executable: false };
        Files(paths.iter().map(|path| ((*path).to_owned(), content.clone())).collect())
    }

    #[test]
    fn only_names_below_the_directory_are_accepted() {
        let good = ["cluster.toml", "modules/a.toml", "modules/a/run.sh", "modules/a/b/c"];
        assert_eq!(files(&good).check(), Ok(()));
        for bad in [
            "",
            "a",
            "keys/ca.key",
            "/etc/passwd",
            "modules/",
            "modules/a",
            "modules/.toml",
            "modules//a.toml",
            "modules/../cluster.toml",
            "modules/a/../../keys/ca.key",
            "modules/a/",
            "modules/a/.hidden",
            "modules/a/\n",
            "cluster.toml/a",
        ] {
            assert!(files(&[bad]).check().is_err(), "{bad:?}");
        }
        assert!(files(&["modules/a/b", "modules/a/b/c"]).check().is_err());
        assert_eq!(files(&["modules/a/b", "modules/a/b.c", "modules/a/bc"]).check(), Ok(()));
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let with = |text: String| {
            let mut all = files(&["cluster.toml"]);
            all.0.insert("modules/a/b".to_owned(), Content { text, executable: false });
            all.check()
        };
        assert_eq!(with("tab\tand\r\n".to_owned()), Ok(()));
        assert!(with("\0".to_owned()).is_err());
        assert_eq!(with("a".repeat(FILE_BYTES_MAX)), Ok(()));
        assert!(with("a".repeat(FILE_BYTES_MAX + 1)).is_err());
        let names: Vec<String> = (0..=FILES_MAX).map(|i| format!("modules/{i}.toml")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(files(&names).check().is_err());
    }

    #[test]
    fn the_digest_tells_names_texts_and_modes_apart() {
        let one = files(&["cluster.toml", "modules/a/b"]);
        let mut other = one.clone();
        assert_eq!(one.digest(), other.digest());
        other.0.get_mut("modules/a/b").unwrap().executable = true;
        assert_ne!(one.digest(), other.digest());
        assert_ne!(one.digest(), files(&["cluster.toml", "modules/a/c"]).digest());
        let mut text = one.clone();
        text.0.get_mut("cluster.toml").unwrap().text.push('b');
        assert_ne!(one.digest(), text.digest());
    }
}
