//! Other ways to a directory, past whatever is mounted over it: the same file system mounted
//! elsewhere, as by a bind mount, or in another mount namespace, as in a container.
//!
//! Told from what the kernel lists of mounts alone: no path is followed into another namespace.
//! What is mounted read-only there changes nothing and is left out. Processes of other pid
//! namespaces that are not visible here are not looked at.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::mounts::{Mount, mounts_of};

/// Another way to a directory, or to a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where it leads through.
    pub place: PathBuf,
    /// A process of the mount namespace in which that is, when it is another one, with its name.
    pub process: Option<(u32, String)>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.display();
        match &self.process {
            None => write!(f, "it is mounted at {place} too"),
            Some((pid, name)) => {
                write!(f, "{name} (pid {pid}), in a mount namespace of its own, has it at {place}")
            }
        }
    }
}

/// Other ways to a directory over which nothing is mounted yet.
pub fn ways(path: &Path) -> Result<Vec<Way>, Errno> {
    let path = path.canonicalize().map_err(|error| {
        // It was there a moment ago.
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })?;
    let ours = mounts_of(Path::new("/proc/self"))?;
    let Some(place) = Place::of(&path, &ours) else { return Ok(Vec::new()) };
    let mut found: Vec<Way> =
        place.seen(&ours, true).map(|at| Way { place: at, process: None }).collect();
    for (pid, process) in others() {
        // One that ends meanwhile has no mounts any more.
        let mounts = mounts_of(&process).unwrap_or_default();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let name = name.trim_end().to_owned();
        found.extend(
            place
                .seen(&mounts, false)
                .map(|at| Way { place: at, process: Some((pid, name.clone())) }),
        );
    }
    Ok(found)
}

/// One process of each other mount namespace, with its directory in /proc.
fn others() -> Vec<(u32, PathBuf)> {
    let own = fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    let mut seen = BTreeSet::from([own]);
    let mut processes: Vec<(u32, PathBuf)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    processes.sort();
    processes.retain(|(_, process)| {
        // Threads of the kernel have none.
        let namespace = fs::read_link(process.join("ns/mnt"));
        namespace.is_ok_and(|namespace| seen.insert(namespace))
    });
    processes
}

/// Where a directory is in its file system.
struct Place {
    path: PathBuf,
    device: Vec<u8>,
    within: PathBuf,
    /// What is mounted over it appears in the mounts of this group, and in those that follow it.
    shared: Option<u64>,
}

impl Place {
    fn of(path: &Path, ours: &[Mount]) -> Option<Place> {
        let mount = covering(ours, path)?;
        let within = below(&mount.root, path.strip_prefix(&mount.point).ok()?);
        let (path, device) = (path.to_owned(), mount.device.clone());
        Some(Place { path, device, within, shared: mount.shared })
    }

    /// Where these mounts show it, or a part of it, so that it can be changed there.
    fn seen<'a>(&'a self, mounts: &'a [Mount], own: bool) -> impl Iterator<Item = PathBuf> + 'a {
        let writable =
            mounts.iter().filter(|mount| mount.device == self.device && !mount.read_only);
        writable.filter_map(move |mount| {
            let at = match self.within.strip_prefix(&mount.root) {
                Ok(rest) => {
                    let at = below(&mount.point, rest);
                    let itself = own && at == self.path;
                    let follows = self.shared.is_some()
                        && (mount.shared == self.shared || mount.master == self.shared);
                    (!itself && !follows).then_some(at)?
                }
                // A part of it.
                Err(_) => mount.root.starts_with(&self.within).then(|| mount.point.clone())?,
            };
            covering(mounts, &at).is_some_and(|top| std::ptr::eq(top, mount)).then_some(at)
        })
    }
}

/// A path below another; the same if nothing is below.
fn below(path: &Path, rest: &Path) -> PathBuf {
    if rest == Path::new("") { path.to_owned() } else { path.join(rest) }
}

/// The mount in which a look at a path ends.
fn covering<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let through = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // Of those at one point the last one lies on top.
    through.max_by_key(|mount| mount.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::parse;

    const OURS: &str = "20 1 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
        21 20 8:2 / /srv rw shared:2 - ext4 /dev/b rw\n";

    fn mounts(text: &str) -> Vec<Mount> {
        text.lines().map(|line| parse(line.as_bytes()).unwrap()).collect()
    }

    fn seen(ours: &str, theirs: &str, own: bool) -> Vec<String> {
        let place = Place::of(Path::new("/srv/data"), &mounts(ours)).unwrap();
        let theirs = mounts(theirs);
        place.seen(&theirs, own).map(|at| at.display().to_string()).collect()
    }

    #[test]
    fn the_directory_itself_is_no_other_way() {
        assert_eq!(seen(OURS, OURS, true), [""; 0]);
    }

    #[test]
    fn other_mounts_of_the_directory_and_of_parts_of_it_are() {
        let more = format!(
            "{OURS}30 20 8:2 /data /mnt/whole rw - ext4 /dev/b rw\n\
             31 20 8:2 /data/part /mnt/part rw - ext4 /dev/b rw\n\
             32 20 8:2 / /mnt/above rw - ext4 /dev/b rw\n\
             33 20 8:2 /other /mnt/other rw - ext4 /dev/b rw\n\
             34 20 8:2 /data /mnt/reader ro - ext4 /dev/b rw\n\
             35 20 8:2 /database /mnt/alike rw - ext4 /dev/b rw\n\
             36 20 8:3 /data /mnt/foreign rw - ext4 /dev/c rw\n"
        );
        assert_eq!(seen(OURS, &more, true), ["/mnt/whole", "/mnt/part", "/mnt/above/data"]);
    }

    #[test]
    fn what_is_hidden_below_another_mount_is_none() {
        let more = format!(
            "{OURS}30 20 8:2 /data /mnt/x rw - ext4 /dev/b rw\n\
             31 20 0:9 / /mnt rw - tmpfs tmpfs rw\n\
             32 31 8:2 /data /mnt/y rw - ext4 /dev/b rw\n\
             33 32 0:10 / /mnt/y rw - tmpfs tmpfs rw\n"
        );
        // The order of the lines tells which of two at one point is on top.
        assert_eq!(seen(OURS, &more, true), ["/mnt/x"]);
    }

    #[test]
    fn another_namespace_counts_unless_it_follows_what_is_mounted_here() {
        let follows = OURS.replace("shared:", "master:");
        assert_eq!(seen(OURS, &follows, false), [""; 0]);
        let takes_part = OURS;
        assert_eq!(seen(OURS, takes_part, false), [""; 0]);
        let apart = OURS.replace(" shared:1", "").replace(" shared:2", "");
        assert_eq!(seen(OURS, &apart, false), ["/srv/data"]);
        let container = "50 1 0:40 / / rw - overlay o rw\n\
            51 50 8:2 /data/volume /var/lib/app rw master:2 - ext4 /dev/b rw\n";
        assert_eq!(seen(OURS, container, false), ["/var/lib/app"], "a part follows nothing");
    }
}
