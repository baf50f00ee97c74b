//! `evenkeel mount`: serves a directory through the replicator's file system, unreplicated.
//!
//! To try what the file system does, and what it costs, without a peer. It stays in the
//! foreground and knows nothing of modules.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use mount::{Immediate, Order, Serving, Tree};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Serves SOURCE at TARGET until it is interrupted; nothing is replicated.
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// Directory to serve.
    source: PathBuf,
    /// Where to show it; may be SOURCE itself.
    target: PathBuf,
    /// Threads that serve requests.
    #[arg(long, default_value_t = 4)]
    threads: usize,
}

/// Mounts, waits for SIGINT or SIGTERM, unmounts.
pub fn run(args: MountArgs) -> ExitCode {
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel mount: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &MountArgs) -> Result<(), Box<dyn std::error::Error>> {
    for removed in mount::remove_leftovers(&args.target)? {
        eprintln!("removed {removed}, left behind by a crash");
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    mount::prepare();
    let tree = Arc::new(Tree::open(0, &args.source)?);
    let order = Arc::new(Order::new(Immediate));
    let serving = Serving::start(tree, order, &args.target, args.threads)?;
    eprintln!("serving {} at {}", args.source.display(), args.target.display());
    signals.forever().next();
    serving.detach()?;
    Ok(())
}
