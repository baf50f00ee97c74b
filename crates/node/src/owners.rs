//! Users and groups by name and number, as /etc/passwd and /etc/group have them. Files carry
//! numbers alone, so those must mean the same people on both nodes.
//!
//! Only the replicated directories and what stands in them directly are looked at, and directories
//! of users elsewhere (LDAP and the like) are not asked: those are the same for all nodes.

use std::collections::BTreeMap;
use std::path::Path;

use mount::backing::{self, Root};
use rustix::io::Errno;

/// Names in a directory that are looked at.
const NAMES_MAX: usize = 4096;

/// The numbers of a kind of owner, by name.
type Numbers = BTreeMap<Vec<u8>, u32>;

/// Users and groups of this node.
pub(crate) struct Owners {
    users: Numbers,
    groups: Numbers,
}

/// A user or group that owns something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) group: bool,
    pub(crate) name: Vec<u8>,
    pub(crate) id: u32,
}

impl Owners {
    /// As this node has them now; nobody where a file cannot be read.
    pub(crate) fn read() -> Owners {
        let numbers = |path: &str| std::fs::read(Path::new(path)).unwrap_or_default();
        Owners { users: parse(&numbers("/etc/passwd")), groups: parse(&numbers("/etc/group")) }
    }

    /// Who owns what stands in a directory, and the directory itself. Who has no name is left out,
    /// and so is the superuser.
    pub(crate) fn of(&self, root: &Root) -> Result<Vec<Owner>, Errno> {
        let mut found = vec![backing::stat(root)?];
        let mut reader = backing::read_dir(root)?;
        while found.len() < NAMES_MAX {
            let chunk = reader.next_chunk()?;
            if chunk.is_empty() {
                break;
            }
            let stats = chunk.iter().filter(|entry| entry.name != b".." && entry.name != b".");
            let stats = stats.map(|entry| backing::open_name(root, &entry.name));
            found.extend(stats.filter_map(|file| backing::stat(file.ok()?).ok()));
        }
        let ids = found.iter().flat_map(|stat| [(false, stat.uid), (true, stat.gid)]);
        let mut owners: Vec<Owner> = ids.filter_map(|(group, id)| self.named(group, id)).collect();
        owners.sort();
        owners.dedup();
        Ok(owners)
    }

    /// How an owner of another node differs here, as a sentence.
    pub(crate) fn differs(&self, group: bool, name: &[u8], id: u32, there: &str) -> Option<String> {
        let kind = if group { "group" } else { "user" };
        let shown = String::from_utf8_lossy(name);
        match self.numbers(group).get(name) {
            Some(here) if *here == id => None,
            Some(here) => Some(format!("{kind} {shown} is {id} on {there} and {here} here")),
            None => Some(format!("{kind} {shown}, {id} on {there}, does not exist here")),
        }
    }

    fn named(&self, group: bool, id: u32) -> Option<Owner> {
        let found = self.numbers(group).iter().find(|(_, number)| **number == id);
        found.filter(|_| id != 0).map(|(name, _)| Owner { group, name: name.clone(), id })
    }

    fn numbers(&self, group: bool) -> &Numbers {
        if group { &self.groups } else { &self.users }
    }
}

/// Lines of a name, a password, and a number, with colons between them.
fn parse(text: &[u8]) -> Numbers {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some((name.to_vec(), number)).filter(|(name, _)| !name.is_empty())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners {
        let users =
            parse(b"root:x:0:0::/:/bin/sh\npostgres:x:26:27::/:/bin/sh\nbad line\n:x:5:5\n");
        Owners { users, groups: parse(b"root:x:0:\npostgres:x:27:a,b\n") }
    }

    #[test]
    fn an_owner_must_be_the_same_on_both_nodes() {
        let owners = owners();
        assert_eq!(owners.users.len(), 2, "lines that are none are left out");
        assert_eq!(owners.differs(false, b"postgres", 26, "node1"), None);
        assert_eq!(owners.differs(true, b"postgres", 27, "node1"), None);
        let other = owners.differs(false, b"postgres", 999, "node1").unwrap();
        assert_eq!(other, "user postgres is 999 on node1 and 26 here");
        let absent = owners.differs(true, b"www", 33, "node1").unwrap();
        assert_eq!(absent, "group www, 33 on node1, does not exist here");
    }

    #[test]
    fn only_who_has_a_name_is_told_and_the_superuser_is_not() {
        let owners = owners();
        assert_eq!(owners.named(false, 26).unwrap().name, b"postgres");
        assert_eq!(owners.named(false, 1234), None);
        assert_eq!(owners.named(true, 0), None);
    }
}
