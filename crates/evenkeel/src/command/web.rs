//! `evenkeel web`: a small web server that says on which host it runs, for farms of the lab.
//!
//! No files, no encryption: whoever wants a web server takes a real one.

use std::net::SocketAddr;
use std::process::ExitCode;

/// How to run the web server.
#[derive(Debug, clap::Args)]
pub(crate) struct WebArgs {
    /// Address and port to serve, which may not be present yet.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
}

/// Serves until SIGTERM.
pub(crate) fn run(args: &WebArgs) -> ExitCode {
    match lab::web::server::run(args.listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("✖ cannot serve {}: {error}", args.listen);
            ExitCode::FAILURE
        }
    }
}
