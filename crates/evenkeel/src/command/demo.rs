//! `evenkeel demo`: two nodes, one virtual address and an application go through replication,
//! failover and failback before the eyes of the user, with every acknowledged transaction counted.
//!
//! It uses the product as an operator would: configuration files, the daemon, the control socket.
//! Nothing is decided or repaired here; what does not hold is said, and makes the exit code 1.

mod application;
mod cluster;
mod farm;
mod report;
mod screen;
mod steps;
mod watch;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use self::application::{App, Application};
use self::cluster::Cluster;
use self::report::Figures;
use self::screen::Screen;
use self::steps::Show;

/// How to run the demo.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    other: Option<Other>,

    /// What the nodes run.
    #[arg(long, value_enum, default_value_t = App::Ledger)]
    app: App,

    /// Leave the cluster running at the end, and say what to try.
    #[arg(long)]
    keep: bool,

    /// Name of the lab that is built.
    #[arg(long, default_value = "demo")]
    name: String,
}

/// Other demos than that of a mirror.
#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Watch three nodes serve one address together, and one of them die, come back and be drained.
    Farm(farm::FarmArgs),
}

/// How to run the ledger.
#[derive(Debug, clap::Args)]
pub(crate) struct LedgerArgs {
    /// Directory of its database.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Address and port to serve, which may not be present yet.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
}

/// Runs the demo. Exit codes: 0 when nothing was lost, the replicas are identical and the pair was
/// protected whenever it should be; 1 when not; 2 when it cannot be run here like this, 4 when the
/// lab's name is taken, 6 without root: nothing was changed then; 130 after Ctrl-C.
pub(crate) fn run(args: DemoArgs, json: bool) -> ExitCode {
    if let Some(Other::Farm(farm)) = &args.other {
        return farm::run(farm, json);
    }
    let mut screen = Screen::new(json);
    let mut figures = Figures::new(args.app);
    let result = perform(&args, &mut screen, &mut figures);
    if let Err(failure) = &result {
        screen.failed(&failure.to_string());
        figures.failure = Some(failure.to_string());
    }
    if json {
        super::print(&figures.json().to_string());
    }
    match result {
        Ok(()) if figures.is_good() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(failure) => ExitCode::from(failure.exit_code()),
    }
}

/// Runs the ledger's server until SIGTERM.
pub(crate) fn ledger(args: LedgerArgs) -> ExitCode {
    match lab::ledger::server::run(&args.data, args.listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("✖ {error}");
            ExitCode::FAILURE
        }
    }
}

/// Builds, shows, and removes or keeps.
fn perform(args: &DemoArgs, screen: &mut Screen, figures: &mut Figures) -> Result<()> {
    require_root()?;
    let application = Application::find(args.app)?;
    let interrupt = lab::interrupt::install().map_err(Failure::io("cannot catch Ctrl-C"))?;
    screen.title(&format!(
        "{} on two nodes, one virtual address, and a client that commits without pause.",
        application.title()
    ));
    let mut cluster = Cluster::build(&args.name, application, &interrupt)?;
    let result = Show::new(&mut cluster, screen, &interrupt, figures)
        .and_then(|mut show| show.all(args.keep).map_err(|failure| show.explain(failure)));
    match (&result, args.keep) {
        (Err(Failure::Interrupted), _) | (_, false) => {
            if !matches!(result, Ok(()) | Err(Failure::Interrupted)) {
                cluster.save_logs(screen);
            }
            if let Err(error) = cluster.lab.down() {
                screen.failed(&format!("the lab was not removed completely: {error}"));
            }
        }
        (Ok(()) | Err(_), true) => {
            let lab = cluster.lab.keep()?;
            screen.plain(&report::what_to_try(&lab, cluster.application.module()));
        }
    }
    result
}

/// Results of the demo's parts.
type Result<T> = std::result::Result<T, Failure>;

/// Why the demo did not come to its end.
#[derive(Debug)]
enum Failure {
    /// The user asked to stop.
    Interrupted,
    /// It cannot be run on this machine like this; nothing was changed.
    Unfit(String),
    /// Without root.
    NotRoot(String),
    /// The lab could not be built or broken.
    Lab(lab::Error),
    /// Something did not happen in time.
    Late { what: String, limit: Duration },
    /// Something else.
    Other(String),
}

impl Failure {
    /// Says what was attempted when the system refuses.
    fn io(what: &str) -> impl FnOnce(std::io::Error) -> Failure {
        move |error| Failure::Other(format!("{what}: {error}"))
    }

    fn exit_code(&self) -> u8 {
        match self {
            Failure::Interrupted => 130,
            Failure::Unfit(_) | Failure::Lab(lab::Error::Invalid(_)) => 2,
            Failure::Lab(lab::Error::Missing { .. } | lab::Error::NoLoop(_)) => 2,
            Failure::Lab(lab::Error::InUse { .. }) => 4,
            Failure::NotRoot(_) | Failure::Lab(lab::Error::NotRoot) => 6,
            Failure::Lab(_) | Failure::Late { .. } | Failure::Other(_) => 1,
        }
    }
}

impl From<lab::Error> for Failure {
    fn from(error: lab::Error) -> Self {
        Failure::Lab(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Interrupted => write!(f, "interrupted"),
            Failure::Lab(error) => write!(f, "{error}"),
            Failure::Late { what, limit } => {
                write!(f, "{what}: that did not happen within {} s", limit.as_secs())
            }
            Failure::Unfit(what) | Failure::NotRoot(what) | Failure::Other(what) => {
                write!(f, "{what}")
            }
        }
    }
}

fn require_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let program = std::env::current_exe().unwrap_or_else(|_| "evenkeel".into());
    let words: Vec<String> = std::env::args().skip(1).collect();
    Err(Failure::NotRoot(format!(
        "the demo needs root: its nodes are namespaces with mounts and disks of their own\n\
         Run: sudo {} {}",
        program.display(),
        words.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_run_here_is_told_apart_from_what_failed() {
        let code = |failure: Failure| failure.exit_code();
        assert_eq!(code(Failure::Unfit(String::new())), 2);
        assert_eq!(code(Failure::Lab(lab::Error::NotRoot)), 6);
        assert_eq!(code(Failure::Interrupted), 130);
        let late = Failure::Late { what: "first sync".into(), limit: Duration::from_secs(60) };
        assert_eq!(late.to_string(), "first sync: that did not happen within 60 s");
        assert_eq!(code(late), 1);
    }
}
