//! What of a directory is not replicated, by name.
//!
//! A pattern without a slash is for names at any depth; in it `*` stands for any bytes and `?` for
//! one. A pattern with one is a path below the replicated directory, as it is. With an object all
//! below it is left out.

/// What is not replicated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclude {
    names: Vec<Vec<u8>>,
    paths: Vec<Vec<Vec<u8>>>,
}

impl Exclude {
    /// What these patterns leave out. They have been checked: no component is empty or dots.
    #[must_use]
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Exclude {
        let mut exclude = Exclude::default();
        for pattern in patterns {
            if pattern.contains('/') {
                let components = pattern.split('/').filter(|name| !name.is_empty());
                exclude.paths.push(components.map(|name| name.as_bytes().to_vec()).collect());
            } else {
                exclude.names.push(pattern.as_bytes().to_vec());
            }
        }
        exclude
    }

    /// Whether nothing is left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.paths.is_empty()
    }

    /// Whether a name is left out wherever it stands.
    #[must_use]
    pub fn has_name(&self, name: &[u8]) -> bool {
        self.names.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether a path, or one that it leads through, is left out.
    #[must_use]
    pub fn covers(&self, components: &[Vec<u8>]) -> bool {
        let by_path = |path: &Vec<Vec<u8>>| components.starts_with(path);
        components.iter().any(|name| self.has_name(name)) || self.paths.iter().any(by_path)
    }

    /// Whether something below this directory is left out by its path: the directory must keep its
    /// name.
    #[must_use]
    pub fn has_below(&self, components: &[Vec<u8>]) -> bool {
        let below = |path: &Vec<Vec<u8>>| path.len() > components.len();
        self.paths.iter().any(|path| below(path) && path.starts_with(components))
    }
}

/// Whether a name is like a pattern. Of several ways to match a `*`, the last one tried takes
/// as little as possible, so that no name takes longer than pattern times name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<Vec<u8>> {
        text.split('/').map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn names_are_like_patterns_or_not() {
        let yes = [
            ("*.tmp", "a.tmp"),
            ("*.tmp", ".tmp"),
            ("a?c", "abc"),
            ("*", "x"),
            ("a*b*c", "aXbbYc"),
        ];
        let no = [("*.tmp", "a.tmp2"), ("a?c", "ac"), ("a", "ab"), ("", "a"), ("a*b", "acd")];
        for (pattern, name) in yes {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in no {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        assert!(matches(b"*\xff?", b"\x80\xff\n"), "names are bytes");
    }

    #[test]
    fn a_name_is_left_out_anywhere_and_a_path_at_its_place() {
        let exclude = Exclude::new(["*.pid", "cache", "logs/local/"]);
        for covered in ["a.pid", "x/cache", "x/cache/y/z", "logs/local", "logs/local/f"] {
            assert!(exclude.covers(&path(covered)), "{covered}");
        }
        for kept in ["cache2", "logs", "local", "x/logs/local", "logs/locals"] {
            assert!(!exclude.covers(&path(kept)), "{kept}");
        }
        assert!(exclude.has_below(&path("logs")) && !exclude.has_below(&path("logs/local")));
        assert!(exclude.has_below(&[]), "the root");
        assert!(Exclude::new([]).is_empty());
    }
}
