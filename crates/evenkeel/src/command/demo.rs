//! The demo.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// How to run the demo.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {}

/// How to run the ledger.
#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    listen: SocketAddr,
}

pub(crate) fn run(_args: DemoArgs, _json: bool) -> ExitCode {
    ExitCode::FAILURE
}

pub(crate) fn ledger(args: LedgerArgs) -> ExitCode {
    match lab::ledger::server::run(&args.data, args.listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("✖ {error}");
            ExitCode::FAILURE
        }
    }
}
