//! The commands that change something. They wait for the outcome.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use model::{ModuleName, NodeName};
use wire::control::{Exit, Reply, Verb, WaitFor};

use crate::command::{Context, machine};

/// How long something may be that ends by itself.
const SPAN_MIN: Duration = Duration::from_secs(1);
const SPAN_MAX: Duration = Duration::from_secs(30 * 86_400);

/// A module, and perhaps one of its nodes.
#[derive(Debug, Args)]
pub(crate) struct ModuleArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// Only this node.
    #[arg(long, value_parser = NodeName::new)]
    node: Option<NodeName>,
}

/// A module and where it shall go.
#[derive(Debug, Args)]
pub(crate) struct SwitchoverArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// The node that shall be primary; the other one by default.
    #[arg(long, value_parser = NodeName::new)]
    to: Option<NodeName>,
}

/// A module and the node that shall be primary.
#[derive(Debug, Args)]
pub(crate) struct ForceArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// The node whose data is to be kept. The other node's is replaced by it.
    #[arg(long, value_parser = NodeName::new)]
    node: NodeName,
}

/// A module and the cap of its resyncs.
#[derive(Debug, Args)]
pub(crate) struct ResyncRateArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// Cap such as 50MB/s, or `unlimited`. It holds until the module's daemon is started anew.
    #[arg(value_parser = rate)]
    rate: Rate,
}

/// A module whose copies are to be compared.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// Make what differs equal to the copy of the node that serves.
    #[arg(long)]
    repair: bool,
}

/// A module and for how long.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// Only this node.
    #[arg(long, value_parser = NodeName::new)]
    node: Option<NodeName>,
    /// For how long, such as 30m, 2h or 1d; it ends by itself.
    #[arg(long = "for", default_value = "2h", value_parser = span)]
    length: Duration,
}

/// Whether somebody works on a node.
#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Somebody works on a node: its applications are handed over where that is possible.
    On {
        /// Node.
        #[arg(value_parser = NodeName::new)]
        node: NodeName,
        /// For how long, such as 30m, 2h or 1d; it ends by itself.
        #[arg(long = "for", default_value = "2h", value_parser = span)]
        length: Duration,
    },
    /// The work is done.
    Off {
        /// Node.
        #[arg(value_parser = NodeName::new)]
        node: NodeName,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rate {
    Unlimited,
    BytesPerSecond(u64),
}

/// A module and a state.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Module.
    #[arg(value_parser = ModuleName::new)]
    module: ModuleName,
    /// State to wait for.
    #[arg(long = "for", value_enum, default_value = "protected")]
    state: State,
    /// Give up after this time, such as 90s or 5m.
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// Primary and up-to-date secondary.
    Protected,
    /// Somebody serves.
    Serving,
    /// Somebody serves without an up-to-date peer.
    Alone,
    /// Stopped on every node.
    Stopped,
}

pub(crate) fn start(context: &Context, args: ModuleArgs) -> ExitCode {
    if let Some(reply) = not_startable(context, &args.module) {
        return context.finish(&reply, |reply: &Reply| reply.sentence.clone());
    }
    run(context, Verb::Start { module: args.module, node: args.node })
}

pub(crate) fn stop(context: &Context, args: ModuleArgs) -> ExitCode {
    run(context, Verb::Stop { module: args.module, node: args.node })
}

pub(crate) fn switchover(context: &Context, args: SwitchoverArgs) -> ExitCode {
    run(context, Verb::Switchover { module: args.module, to: args.to })
}

pub(crate) fn force_primary(context: &Context, args: ForceArgs) -> ExitCode {
    run(context, Verb::ForcePrimary { module: args.module, node: args.node })
}

pub(crate) fn pause(context: &Context, args: PauseArgs) -> ExitCode {
    let seconds = args.length.as_secs();
    run(context, Verb::Pause { module: args.module, node: args.node, seconds })
}

pub(crate) fn resume(context: &Context, args: ModuleArgs) -> ExitCode {
    run(context, Verb::Resume { module: args.module, node: args.node })
}

pub(crate) fn maintenance(context: &Context, command: MaintenanceCommand) -> ExitCode {
    let (node, seconds) = match command {
        MaintenanceCommand::On { node, length } => (node, Some(length.as_secs())),
        MaintenanceCommand::Off { node } => (node, None),
    };
    run(context, Verb::Maintenance { node, module: None, seconds })
}

pub(crate) fn resync_rate(context: &Context, args: ResyncRateArgs) -> ExitCode {
    let bytes_per_second = match args.rate {
        Rate::Unlimited => None,
        Rate::BytesPerSecond(rate) => Some(rate),
    };
    run(context, Verb::ResyncRate { module: args.module, node: None, bytes_per_second })
}

pub(crate) fn verify(context: &Context, args: VerifyArgs) -> ExitCode {
    run(context, Verb::Verify { module: args.module, node: None, repair: args.repair })
}

pub(crate) fn wait(context: &Context, args: WaitArgs) -> ExitCode {
    let state = match args.state {
        State::Protected => WaitFor::Protected,
        State::Serving => WaitFor::Serving,
        State::Alone => WaitFor::Alone,
        State::Stopped => WaitFor::Stopped,
    };
    let timeout_ms = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    run(context, Verb::Wait { module: args.module, state, timeout_ms })
}

/// What has to be mended before a start on this node can come to anything. Found out before any
/// node is asked, so that none is left waiting for one that cannot start.
fn not_startable(context: &Context, module: &ModuleName) -> Option<Reply> {
    let status = context.ask(Verb::Status);
    let module_status = status.data["modules"].get(module.as_str())?;
    if module_status["role"] == "STOP"
        && let Err(found) = machine::check_directories(&context.layout(), Some(module))
    {
        return Some(Reply::new(Exit::Usage, found.to_string()));
    }
    let reasons = module_status["reasons"].as_array()?;
    let differs = reasons.iter().find(|reason| reason["code"] == "config-differs")?;
    let mut reply =
        Reply::new(Exit::Usage, differs["sentence"].as_str().unwrap_or_default().to_owned());
    let next = differs["next"].as_array().into_iter().flatten();
    reply.next = next.filter_map(|next| next.as_str().map(str::to_owned)).collect();
    Some(reply)
}

fn run(context: &Context, verb: Verb) -> ExitCode {
    let reply = context.ask(verb);
    context.finish(&reply, |reply: &Reply| format!("✔ {}", reply.sentence))
}

/// Reads a rate with its unit, or that there is none.
fn rate(text: &str) -> Result<Rate, String> {
    if text == "unlimited" {
        return Ok(Rate::Unlimited);
    }
    let rate = model::config::bytes_per_second(text).map(Rate::BytesPerSecond);
    rate.ok_or_else(|| "give a whole number with a unit, such as 50MB/s, or `unlimited`".to_owned())
}

/// Reads how long something is to last that ends by itself.
fn span(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    let allowed = SPAN_MIN..=SPAN_MAX;
    let wrong = || "give a time between 1s and 30d".to_owned();
    allowed.contains(&span).then_some(span).ok_or_else(wrong)
}

/// Reads a time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let mend = "give a whole number with a unit: 500ms, 90s, 5m, 1h or 1d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| mend.clone())?;
    let millis = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(mend),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or(mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_its_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(span("1d"), Ok(Duration::from_secs(86_400)));
        assert!(span("999ms").is_err() && span("31d").is_err());
        for bad in ["", "5", "s", "1.5s", "5 s", "99999999999999999999h", "18446744073709551h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
