//! `evenkeel demo farm`: three nodes serve one address together; one is killed, comes back, is
//! drained and taken in again, while clients never pause.
//!
//! It uses the product as an operator would, as the other demo does. Nothing is decided or repaired
//! here; what does not hold is said, and makes the exit code 1.

mod figures;
mod site;
mod steps;

use std::process::ExitCode;

use self::figures::Figures;
use self::site::{App, Site};
use self::steps::{Show, Victim};
use super::screen::Screen;
use super::{Failure, Result, require_root};

/// How to run the demo of a farm.
#[derive(Debug, clap::Args)]
pub(crate) struct FarmArgs {
    /// What the nodes run.
    #[arg(long, value_enum, default_value_t = App::Web)]
    app: App,

    /// Which node is killed.
    #[arg(long, value_enum, default_value_t = Victim::Other)]
    kill: Victim,

    /// Name of the lab that is built.
    #[arg(long, default_value = "demo-farm")]
    name: String,
}

/// Runs the demo. The exit codes are those of the other one; 0 when no connection broke but those
/// of the killed node, and no new one was lost but those of its share.
pub(super) fn run(args: &FarmArgs, json: bool) -> ExitCode {
    let mut screen = Screen::new(json);
    let mut figures = Figures::new(args.app);
    let result = perform(args, &mut screen, &mut figures);
    if let Err(failure) = &result {
        screen.failed(&failure.to_string());
        figures.failure = Some(failure.to_string());
    }
    if json {
        crate::command::print(&figures.json().to_string());
    }
    match result {
        Ok(()) if figures.is_good() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(failure) => ExitCode::from(failure.exit_code()),
    }
}

/// Builds, shows and removes.
fn perform(args: &FarmArgs, screen: &mut Screen, figures: &mut Figures) -> Result<()> {
    require_root()?;
    args.app.find()?;
    let interrupt = lab::interrupt::install().map_err(Failure::io("cannot catch Ctrl-C"))?;
    screen.title("Three nodes, one address, no balancer, and clients that never pause.");
    let mut site = Site::build(&args.name, args.app, &interrupt)?;
    let result = Show::new(&mut site, screen, &interrupt, figures)
        .and_then(|mut show| show.all(args.kill).map_err(|failure| show.explain(failure)));
    let failed = !matches!(result, Ok(()) | Err(Failure::Interrupted));
    if failed || (result.is_ok() && !figures.is_good()) {
        site.save_logs(screen);
    }
    if let Err(error) = site.lab.down() {
        screen.failed(&format!("the lab was not removed completely: {error}"));
    }
    result
}
