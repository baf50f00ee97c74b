//! `evenkeel mount`: serves a directory through the replicator's file system, unreplicated.
//!
//! To try what the file system does, and what it costs, without a peer. It knows nothing of
//! modules. Called as `mount.fuse.evenkeel` it is what mount(8) calls for `fuse.evenkeel`.

mod background;
mod options;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use fuse::{Features, MountOptions};
use mount::{Immediate, Order, Serving, Tree};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use options::Options;

/// Name under which mount(8) calls this program.
pub const HELPER: &str = "mount.fuse.evenkeel";

/// What mount(8) understands as a failed mount.
const MOUNT_FAILED: u8 = 32;

/// Serves SOURCE at TARGET until it is unmounted or interrupted; nothing is replicated.
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// Directory to serve.
    source: PathBuf,
    /// Where to show it; may be SOURCE itself.
    target: PathBuf,
    /// Threads that serve requests.
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Options as of mount(8), such as `ro,noatime`; `source=DIR` stands for SOURCE.
    #[arg(short, value_name = "OPTIONS", default_value = "")]
    options: String,
    /// Return when the mount stands, and go on serving.
    #[arg(long)]
    background: bool,
    /// Do without features of newer kernels, to try what is done instead.
    #[arg(long, value_name = "FEATURE", value_delimiter = ',', hide = true)]
    without: Vec<String>,
    /// Serve for the process that waits at the other end of standard input.
    #[arg(long, hide = true)]
    serve_for_parent: bool,
}

/// Mounts and serves.
pub fn run(args: MountArgs) -> ExitCode {
    let outcome = if args.serve_for_parent {
        return background::serve_for_parent(|ready| serve(&args, ready));
    } else if args.background {
        background::start(std::env::args_os().skip(1).collect())
    } else {
        serve(&args, &mut |line| eprintln!("{line}"))
    };
    finish(outcome, ExitCode::FAILURE)
}

/// What mount(8) calls: `mount.fuse.evenkeel SOURCE TARGET [-sfnv] [-t TYPE] [-o OPTIONS]`.
pub fn helper(words: impl Iterator<Item = OsString>) -> ExitCode {
    match options::helper_words(words) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(words)) => finish(background::start(words), ExitCode::from(MOUNT_FAILED)),
        Err(message) => {
            eprintln!("{HELPER}: {message}");
            ExitCode::from(1)
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn finish(outcome: Outcome, failed: ExitCode) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel mount: {error}");
            failed
        }
    }
}

/// Serves until the mount is gone; `say` is told when it stands.
fn serve(args: &MountArgs, say: &mut dyn FnMut(&str)) -> Outcome {
    let options = Options::parse(&args.options)?;
    let source = options.source.as_deref().unwrap_or(&args.source);
    let features = args.without.iter().try_fold(Features::default(), |all, name| all.without(name));
    let target = std::path::absolute(&args.target)?;
    for removed in mount::remove_leftovers(&target)? {
        eprintln!("removed {removed}, left behind by a crash");
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    mount::prepare();
    let tree = Arc::new(Tree::open(0, source)?);
    let order = Arc::new(Order::new(Immediate));
    let how = MountOptions {
        source: shown(source).display().to_string(),
        features: features?,
        flags: options.flags,
    };
    let threads = options.threads.unwrap_or(args.threads);
    let serving = Serving::start_with(tree, order, &target, threads, how)?;
    say(&format!("serving {} at {}", source.display(), target.display()));
    let stop = serving.stopper();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        signals.forever().next();
        stop()
    })?;
    serving.wait();
    Ok(())
}

/// The source as `mount` shows it: with its whole path, so that it is recognised in fstab.
fn shown(source: &Path) -> PathBuf {
    source.canonicalize().unwrap_or_else(|_| source.to_owned())
}
