//! What the tests of the mount share: a scratch directory served to itself, and descriptions of
//! trees to compare.
//!
//! Needs root and /dev/fuse, and says so instead of skipping.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuse::{Features, MountOptions};
use mount::{Immediate, Order, Recorder, Serving, Tree};

/// A directory `source`, and the same served at `view`.
pub struct Fixture {
    pub base: PathBuf,
    pub source: PathBuf,
    pub view: PathBuf,
    pub tree: Arc<Tree>,
    serving: Option<Serving>,
}

impl Fixture {
    pub fn new(name: &str) -> Fixture {
        Fixture::recording(name, Immediate)
    }

    pub fn recording(name: &str, recorder: impl Recorder + 'static) -> Fixture {
        let base = scratch(name);
        std::fs::create_dir(base.join("source")).unwrap();
        Fixture::over(base, recorder)
    }

    /// Serves without some features of newer kernels.
    pub fn without(name: &str, features: &[&str]) -> Fixture {
        let base = scratch(name);
        std::fs::create_dir(base.join("source")).unwrap();
        let features =
            features.iter().fold(Features::default(), |all, name| all.without(name).unwrap());
        Fixture::with(base, Immediate, MountOptions { features, ..MountOptions::default() })
    }

    /// Serves the directory `source` that has been made, or mounted, in `base`.
    pub fn over(base: PathBuf, recorder: impl Recorder + 'static) -> Fixture {
        Fixture::with(base, recorder, MountOptions::default())
    }

    fn with(base: PathBuf, recorder: impl Recorder + 'static, how: MountOptions) -> Fixture {
        let (source, view) = (base.join("source"), base.join("view"));
        std::fs::create_dir(&view).unwrap();
        let tree = Arc::new(Tree::open(0, &source).unwrap());
        let order = Arc::new(Order::new(recorder));
        let serving = Serving::start_with(Arc::clone(&tree), order, &view, 3, how).unwrap();
        Fixture { base, source, view, tree, serving: Some(serving) }
    }

    pub fn detach(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.detach().unwrap();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(self.serving.take());
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

/// A mount that goes when the test ends, however it does, and the directory around it.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn new(kind: &str, at: &Path, data: &str) -> Mounted {
        std::fs::create_dir(at).unwrap();
        let data = std::ffi::CString::new(data).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", at, kind, flags, data.as_c_str()).unwrap();
        Mounted(at.to_owned())
    }

    /// A new ext4 file system in an image beside `at`.
    pub fn ext4(at: &Path, megabytes: u64, make: &[&str], mount: &str) -> Mounted {
        std::fs::create_dir(at).unwrap();
        let image = at.with_extension("image");
        std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        run("mkfs.ext4", [words(&["-q"]), words(make), vec![image.clone().into()]].concat());
        let options = words(&["-o", &format!("loop{mount}")]);
        run("mount", [options, vec![image.into(), at.into()]].concat());
        std::fs::remove_dir(at.join("lost+found")).unwrap();
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        if let Some(around) = self.0.parent() {
            let _ = std::fs::remove_dir_all(around);
        }
    }
}

fn run(program: &str, arguments: Vec<OsString>) {
    let done = std::process::Command::new(program).args(&arguments).status();
    assert!(done.unwrap().success(), "{program} {arguments:?}");
}

/// An empty directory of this test run, where nothing is left mounted.
pub fn scratch(name: &str) -> PathBuf {
    assert!(rustix::process::geteuid().is_root(), "the tests of the mount must run as root");
    assert!(Path::new("/dev/fuse").exists(), "no /dev/fuse: load it with `modprobe fuse`");
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mount-{name}"));
    for below in ["", "view", "source", "directory"] {
        let _ = mount::remove_leftovers(&base.join(below));
    }
    let _ = std::fs::remove_dir_all(&base);
    std::fs::create_dir_all(&base).unwrap();
    base
}

/// Everything about a tree that must be equal, by path.
pub fn describe(root: &Path, with_times: bool) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    describe_below(root, root, with_times, &mut found);
    found
}

fn describe_below(
    root: &Path,
    directory: &Path,
    with_times: bool,
    found: &mut BTreeMap<PathBuf, String>,
) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_owned();
        found.insert(name, describe_file(&path, with_times));
        if path.symlink_metadata().unwrap().is_dir() {
            describe_below(root, &path, with_times, found);
        }
    }
}

fn describe_file(path: &Path, with_times: bool) -> String {
    let seen = path.symlink_metadata().unwrap();
    let kind = seen.file_type();
    let content = if kind.is_symlink() {
        format!("-> {:?}", std::fs::read_link(path).unwrap())
    } else if kind.is_file() {
        let bytes = std::fs::read(path).unwrap();
        let sum = bytes.iter().fold(0u64, |sum, byte| {
            sum.wrapping_mul(0x100_0000_01b3).wrapping_add(u64::from(*byte) + 1)
        });
        format!("{} bytes, {sum:016x}", bytes.len())
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {}", seen.rdev())
    } else {
        String::new()
    };
    let mut text = format!(
        "{:o} {}:{} {} links {content} {:?}",
        seen.mode(),
        seen.uid(),
        seen.gid(),
        seen.nlink(),
        xattrs(path)
    );
    if with_times {
        text += &format!(" {}.{:09}", seen.mtime(), seen.mtime_nsec());
    }
    text
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (std::ffi::OsStr::from_bytes(name).to_owned(), value)
        })
        .collect()
}
