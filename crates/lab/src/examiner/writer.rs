//! `lab-examiner ROOT WRITER SEED`: one writer, until it is killed or the first operation fails.
//! Its log goes to standard output; [`furnish`] makes what it needs before it starts.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::Mode;

use super::generate::Generator;
use super::log::Log;
use super::model::Model;
#[cfg(test)]
use super::op::Op;
use super::op::{Allocation, SHARED, own_directory};
use super::perform::{Performer, allocate};

/// The hidden subcommand that is a writer.
pub const COMMAND: &str = "lab-examiner";
/// Where a writer finds out what the file system can do.
const PROBE: &str = "probe";

/// Makes the directories of so many writers below a new directory.
///
/// # Errors
/// When it exists or cannot be made.
pub fn furnish(root: &Path, writers: u32) -> io::Result<()> {
    fs::create_dir(root)?;
    fs::create_dir(root.join(SHARED))?;
    (0..writers).try_for_each(|writer| {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().mode(0o755).create(root.join(own_directory(writer)))
    })
}

/// Is a writer, with the arguments after `lab-examiner`: the directory made by [`furnish`], the
/// writer's number, the seed of its operations.
pub fn run(args: &[OsString]) -> ExitCode {
    let text = |at: usize| args.get(at).and_then(|word| word.to_str());
    let number = |at: usize| text(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(root), Some(writer), Some(seed)) = (text(0), number(1), number(2)) else {
        let _ = writeln!(io::stderr(), "usage: {COMMAND} ROOT WRITER SEED");
        return ExitCode::FAILURE;
    };
    let count = number(3).unwrap_or(u64::MAX);
    let writer = u32::try_from(writer).unwrap_or(0);
    match work(Path::new(root), writer, seed, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Into the log, where it is found as no line of a log.
            let _ = writeln!(io::stderr(), "writer {writer}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Works in the mount that covers `root` now, and nowhere else should that go away.
fn work(root: &Path, writer: u32, seed: u64, count: u64) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::umask(Mode::empty());
    let refused = refused(&Path::new(&own_directory(writer)).join(PROBE))?;
    let mut generator = Generator::new(seed, refused);
    let mut performer = Performer::new(Path::new(""), writer);
    let mut model = Model::new();
    let mut log = Log::default();
    for number in 0..count {
        let (op, after) = generator.next(&model);
        log.begin(number, &op)?;
        let id = op.paths().first().and_then(|path| model.id(path));
        let result = performer.perform(&op, id);
        log.end(number, &result)?;
        if result.is_err() {
            break;
        }
        model = after;
    }
    log.flush()
}

/// The kinds of `fallocate` that cannot be had here.
fn refused(probe: &Path) -> io::Result<BTreeSet<Allocation>> {
    let kinds = [
        Allocation::Grow,
        Allocation::Keep,
        Allocation::Punch,
        Allocation::Zero,
        Allocation::Collapse,
        Allocation::Insert,
    ];
    let file = File::create(probe)?;
    file.set_len(1 << 16)?;
    let mut refused = BTreeSet::new();
    for how in kinds {
        match allocate(&file, how, 4096, 4096) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                refused.insert(how);
            }
            other => other?,
        }
    }
    fs::remove_file(probe)?;
    Ok(refused)
}

/// Performs what a seed begins with, for tests of the judgement.
#[cfg(test)]
pub(super) fn rehearse(root: &Path, seed: u64, count: u64) -> Vec<Op> {
    let mut generator = Generator::new(seed, BTreeSet::new());
    let mut model = Model::new();
    let mut performer = Performer::new(root, 0);
    let mut ops = Vec::new();
    for _ in 0..count {
        let (op, after) = generator.next(&model);
        let id = op.paths().first().and_then(|path| model.id(path));
        performer.perform(&op, id).unwrap_or_else(|error| panic!("{op:?}: {error}"));
        ops.push(op);
        model = after;
    }
    ops
}
