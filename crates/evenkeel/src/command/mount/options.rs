//! Options as mount(8) and fstab write them.
//!
//! What concerns mount(8) alone is passed over; what nobody knows is refused.

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::mount::MountFlags;

/// Options of a mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Directory to serve instead of the one given as a word.
    pub(super) source: Option<PathBuf>,
    /// Threads that serve requests.
    pub(super) threads: Option<usize>,
    /// What the kernel is told.
    pub(super) flags: MountFlags,
}

/// Options that are for mount(8), systemd and the like, and those that are always so here.
const PASSED_OVER: [&str; 18] = [
    "",
    "rw",
    "defaults",
    "dev",
    "suid",
    "exec",
    "atime",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "group",
    "owner",
    "nofail",
    "_netdev",
    "allow_other",
    "default_permissions",
];

impl Options {
    /// Reads a list separated by commas.
    pub(super) fn parse(list: &str) -> Result<Options, String> {
        let mut options = Options { source: None, threads: None, flags: MountFlags::empty() };
        for option in list.split(',').filter(|option| !PASSED_OVER.contains(option)) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "source" => options.source = Some(PathBuf::from(value)),
                "threads" => {
                    let count = value.parse().ok().filter(|count| *count > 0);
                    let count = count.ok_or_else(|| format!("`{option}`: no number of threads"))?;
                    options.threads = Some(count);
                }
                "comment" | "subtype" | "fsname" => {}
                _ if name.starts_with("x-") || name.starts_with("X-") => {}
                _ => options.flags |= flag(option)?,
            }
        }
        Ok(options)
    }
}

fn flag(option: &str) -> Result<MountFlags, String> {
    match option {
        "ro" => Ok(MountFlags::RDONLY),
        "nodev" => Ok(MountFlags::NODEV),
        "nosuid" => Ok(MountFlags::NOSUID),
        "noexec" => Ok(MountFlags::NOEXEC),
        "noatime" => Ok(MountFlags::NOATIME),
        "nodiratime" => Ok(MountFlags::NODIRATIME),
        "relatime" => Ok(MountFlags::RELATIME),
        "strictatime" => Ok(MountFlags::STRICTATIME),
        "sync" => Ok(MountFlags::SYNCHRONOUS),
        "dirsync" => Ok(MountFlags::DIRSYNC),
        _ => Err(format!("`{option}` is no option of a fuse.evenkeel mount")),
    }
}

/// The words of `evenkeel` that do what mount(8) wants of its helper; none when it only wants to
/// know whether it could.
pub(super) fn helper_words(
    words: impl Iterator<Item = OsString>,
) -> Result<Option<Vec<OsString>>, String> {
    let mut words = words;
    let (mut places, mut list, mut fake) = (Vec::new(), OsString::new(), false);
    while let Some(word) = words.next() {
        let value = |words: &mut dyn Iterator<Item = OsString>| {
            words.next().ok_or_else(|| format!("{} wants a value", word.display()))
        };
        match word.to_str() {
            Some("-o") => {
                if !list.is_empty() {
                    list.push(",");
                }
                list.push(value(&mut words)?);
            }
            Some("-t" | "-N") => drop(value(&mut words)?),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') => fake |= flags.contains('f'),
            _ => places.push(word),
        }
    }
    let [source, target] = <[OsString; 2]>::try_from(places)
        .map_err(|_| "wants a directory and where to show it".to_owned())?;
    Options::parse(&list.to_string_lossy())?;
    let (verb, dashed) = (OsString::from("mount"), OsString::from("-o"));
    Ok((!fake).then(|| vec![verb, source, target, dashed, list]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_fstab_are_understood() {
        let options =
            Options::parse("rw,noatime,_netdev,x-systemd.automount,source=/a=b,threads=2");
        let expected = Options {
            source: Some(PathBuf::from("/a=b")),
            threads: Some(2),
            flags: MountFlags::NOATIME,
        };
        assert_eq!(options, Ok(expected));
        assert!(Options::parse("defaults").unwrap().flags.is_empty());
        for wrong in ["discard", "threads=0", "threads", "ro=1"] {
            assert!(Options::parse(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_words_of_mount_become_ours() {
        let ask = |words: &[&str]| helper_words(words.iter().map(OsString::from));
        let words = ask(&["/a", "/b", "-sn", "-o", "ro", "-t", "fuse.evenkeel", "-o", "nodev"]);
        let expected: Vec<OsString> =
            ["mount", "/a", "/b", "-o", "ro,nodev"].map(Into::into).into();
        assert_eq!(words, Ok(Some(expected)));
        assert_eq!(ask(&["-f", "/a", "/b"]), Ok(None));
        assert!(ask(&["/a"]).is_err() && ask(&["/a", "/b", "-o"]).is_err());
        assert!(ask(&["/a", "/b", "-o", "nonsense"]).is_err());
    }
}
