//! Resync under random changes of every kind: while a program renames, links, removes and writes
//! without pause, the secondary is killed and comes back, in the middle of its resync too. At the
//! end both replicas are identical. What a single operation does is tested in `mount`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags};

use self::support::applications::ledger;
use self::support::logs::{log_of, progress, why};
use self::support::random::{Random, rounds};
use self::support::{Cluster, SYNC_PATIENCE, other};

/// Names in a directory: few, so that operations meet.
const NAMES: u64 = 40;
/// Directories beyond which no more are made.
const DIRECTORIES: usize = 60;
/// Operations between two looks at what there is.
const LOOK_EVERY: u64 = 200;

#[test]
fn replicas_are_identical_after_resyncs_under_random_changes() {
    changes_during_resyncs("", 2, |_, _| {});
}

#[test]
fn so_they_are_where_everything_is_compared_each_time() {
    let compare_all = |cluster: &Cluster, secondary: &str| {
        // Without it nothing is known of what that copy lacks.
        fs::remove_file(log_of(cluster, secondary)).unwrap();
    };
    // Slowly, so that much is changed of what the walk has left behind, and of what it has not.
    let slowly = "[replication]\nresync_rate = \"20MB/s\"\n";
    let last = changes_during_resyncs(slowly, 1, compare_all);
    assert!(last.starts_with("the trees are compared whole"), "{last}");
}

/// Makes rounds of changes and resyncs, with `before` done to a node that is about to come back.
/// Says why the last resync compared what it compared.
fn changes_during_resyncs(
    replication: &str,
    usual: u64,
    before: impl Fn(&Cluster, &str),
) -> String {
    let mut last = String::new();
    let mut random = Random::from_environment();
    let cluster = Cluster::protected(ledger(replication));
    for round in 0..rounds(usual) {
        let primary = cluster.primary();
        let secondary = other(primary);
        let place = cluster.host(primary).path("/srv/ledger/random").unwrap();
        let changes = Changes::start(place, Random::new(random.below(u64::MAX)));
        for _ in 0..2 {
            random.moment(Duration::from_millis(1500));
            cluster.lab().kill(secondary).unwrap();
            cluster.wait_for_role(primary, &["ALONE"]);
            random.moment(Duration::from_millis(1500));
            cluster.lab().start(secondary).unwrap();
            before(&cluster, secondary);
            cluster.start_daemon(secondary);
            // Perhaps in the middle of the resync, perhaps after it.
            random.moment(Duration::from_millis(1500));
        }
        cluster.wait_for(primary, "protected", SYNC_PATIENCE);
        let made = changes.stop();
        println!("round {round}: {made} changes");
        cluster.wait_for(primary, "protected", SYNC_PATIENCE);
        last = why(&progress(&cluster, primary)).to_owned();
        cluster.stop_and_compare();
        cluster.must(primary, &["start", cluster.module()]);
        cluster.wait_for(primary, "protected", SYNC_PATIENCE);
    }
    last
}

/// A thread that changes a tree at random.
struct Changes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Changes {
    fn start(place: PathBuf, random: Random) -> Changes {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            fs::create_dir_all(&place).unwrap();
            let mut changer = Changer { random, place, directories: Vec::new(), files: Vec::new() };
            let mut made = 0;
            for count in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                if count % LOOK_EVERY == 0 {
                    changer.look();
                }
                made += u64::from(changer.change());
            }
            made
        });
        Changes { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

struct Changer {
    random: Random,
    place: PathBuf,
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Changer {
    /// Finds out what there is.
    fn look(&mut self) {
        self.directories = vec![self.place.clone()];
        self.files.clear();
        let mut next = 0;
        while let Some(directory) = self.directories.get(next).cloned() {
            next += 1;
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => self.directories.push(entry.path()),
                    Ok(_) => self.files.push(entry.path()),
                    Err(_) => {}
                }
            }
        }
    }

    /// Tries one change; true when it was made. Names that went away or are in the way are part
    /// of it; an error of the mount itself is not.
    fn change(&mut self) -> bool {
        let result = self.try_change();
        if let Err(error) = &result {
            let broken =
                [rustix::io::Errno::IO, rustix::io::Errno::ROFS, rustix::io::Errno::NOTCONN];
            let code = error.raw_os_error();
            assert!(
                !broken.iter().any(|errno| code == Some(errno.raw_os_error())),
                "the mount failed: {error}"
            );
        }
        result.is_ok()
    }

    fn try_change(&mut self) -> io::Result<()> {
        let (file, directory) = (self.any_file(), self.any_directory());
        let new = self.new_name();
        match self.random.below(22) {
            0..=2 => self.write(&new),
            3 if self.directories.len() < DIRECTORIES => {
                fs::create_dir(&new)?;
                self.directories.push(new);
                Ok(())
            }
            4 => fs::remove_file(file),
            5 => fs::rename(file, new),
            6 if directory != self.place => {
                fs::rename(directory, new)?;
                self.look();
                Ok(())
            }
            7 => fs::hard_link(file, new),
            8 => symlink(format!("target{}", self.random.below(99)), new),
            9 => OpenOptions::new().write(true).open(file)?.set_len(self.random.below(200_000)),
            10 => {
                let mode = [0o600, 0o644, 0o755][self.random.below(3) as usize];
                fs::set_permissions(file, fs::Permissions::from_mode(mode))
            }
            11 => {
                let name = format!("user.a{}", self.random.below(3));
                let value = self.random.below(u64::MAX).to_le_bytes();
                Ok(rustix::fs::setxattr(file, name, &value, XattrFlags::empty())?)
            }
            12 if directory != self.place => fs::remove_dir(directory),
            13 => chown(file, Some(self.random.below(3) as u32), Some(self.random.below(3) as u32)),
            14 => {
                let open = OpenOptions::new().read(true).write(true).open(&file)?;
                fs::remove_file(file)?;
                open.write_at(b"nobody will read this", 5)?;
                open.sync_all()
            }
            15 => self.set_list(&file, "system.posix_acl_access"),
            16 => self.set_list(&directory, "system.posix_acl_default"),
            17 => self.link_unnamed(&directory, &new),
            18 => Ok(rustix::fs::renameat_with(CWD, file, CWD, new, RenameFlags::WHITEOUT)?),
            19 | 20 => self.swap(file, directory),
            _ => File::open(file)?.sync_all(),
        }
    }

    /// Exchanges two names, of whatever kinds.
    fn swap(&mut self, file: PathBuf, directory: PathBuf) -> io::Result<()> {
        let (one, other) = match self.random.below(3) {
            0 => (file, self.any_file()),
            1 => (file, directory),
            _ => (directory, self.any_directory()),
        };
        rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?;
        self.look();
        Ok(())
    }

    fn write(&mut self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let data: Vec<u8> = (0..=self.random.below(3000))
            .flat_map(|_| self.random.below(u64::MAX).to_le_bytes())
            .collect();
        file.write_at(&data, self.random.below(300_000))?;
        self.files.push(path.to_owned());
        Ok(())
    }

    /// Sets an access control list, or removes it.
    fn set_list(&mut self, path: &Path, name: &str) -> io::Result<()> {
        const NOBODY: u32 = u32::MAX;
        if self.random.below(3) == 0 {
            return Ok(rustix::fs::removexattr(path, name)?);
        }
        let mask = self.random.below(8) as u16;
        let user = 1000 + self.random.below(3) as u32;
        let mut list = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in [
            (1u16, 7u16, NOBODY),
            (2, 6, user),
            (4, 5, NOBODY),
            (16, mask, NOBODY),
            (32, 1, NOBODY),
        ] {
            list.extend(tag.to_le_bytes());
            list.extend(bits.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        Ok(rustix::fs::setxattr(path, name, &list, XattrFlags::empty())?)
    }

    /// Makes a file without a name, and gives it one.
    fn link_unnamed(&mut self, directory: &Path, name: &Path) -> io::Result<()> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o640))?);
        file.write_at(b"before it has a name", self.random.below(200_000))?;
        if self.random.below(2) == 0 {
            file.sync_all()?;
        }
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, from, CWD, name, AtFlags::SYMLINK_FOLLOW)?;
        file.write_at(b"after", self.random.below(200_000))?;
        self.files.push(name.to_owned());
        Ok(())
    }

    fn any_file(&mut self) -> PathBuf {
        let index = self.random.below(self.files.len().max(1) as u64) as usize;
        self.files.get(index).cloned().unwrap_or_else(|| self.place.join("n0"))
    }

    fn any_directory(&mut self) -> PathBuf {
        let index = self.random.below(self.directories.len().max(1) as u64) as usize;
        self.directories.get(index).cloned().unwrap_or_else(|| self.place.clone())
    }

    fn new_name(&mut self) -> PathBuf {
        let name = format!("n{}", self.random.below(NAMES));
        self.any_directory().join(name)
    }
}
