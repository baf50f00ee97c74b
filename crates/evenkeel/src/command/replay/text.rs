//! Inputs and effects as sentences.

use cluster::effect::{Assignment, Effect, Ending, Outcome, ServiceAction};
use cluster::input::{Command, ReplicatorEvent};
use cluster::isolation::Reach;
use cluster::report::Heartbeat;
use cluster::{Input, witness};
use model::{ModuleName, Severity};

/// What a node was given.
pub(super) fn input(input: &Input) -> String {
    match input {
        Input::Heartbeat { heartbeat, echoed, .. } => self::heartbeat(heartbeat, echoed.is_some()),
        Input::DataLink { module, echoed, .. } => {
            let ways = if echoed.is_some() { "both ways" } else { "one way" };
            format!("the data link of {module} carries {ways}")
        }
        Input::Witness { module, request, answer } => {
            format!(
                "the witness answers {} of {module}: {}",
                question(request),
                self::answer(answer)
            )
        }
        Input::WitnessUnreachable { module, why } => {
            format!("the witness cannot be asked for {module}: {why}")
        }
        Input::Replicator { module, event } => format!("replicator of {module}: {}", said(event)),
        Input::AddressesSet { module, held, error } => {
            let what = if *held { "held" } else { "not held" };
            format!("addresses of {module} are {what}{}", failed(error.as_ref()))
        }
        Input::ServiceDone { module, action, error } => {
            let how = error.as_ref().map(|error| &error.how);
            format!("application of {module}: {} done{}", action_of(*action), failed(how))
        }
        Input::CheckResult { module, serial, check, up, evidence } => {
            let state = if *up { "up" } else { "down" };
            let how = failed(evidence.first());
            format!("check {check} of {module}, serial {serial}, is {state}{how}")
        }
        Input::ResyncPrepared { module, serial, error } => {
            let how = error.as_ref().map(|error| &error.how);
            format!("script before the resync of {module} ended, serial {serial}{}", failed(how))
        }
        Input::HeldOff { module, serial, error } => {
            let how = error.as_ref().map(|error| &error.how);
            format!("the peer of {module} is held off, serial {serial}{}", failed(how))
        }
        Input::Pulse { module, pulse, .. } => {
            let table = pulse.table.as_ref().map_or_else(String::new, |table| {
                format!(", with table {} of term {}", table.stamp.serial, table.stamp.term)
            });
            format!("pulse of seat {} of {module}: {:?}{table}", pulse.from, pulse.part)
        }
        Input::SharesSet { module, edition, error } => {
            format!("the kernel goes by shares {edition} of {module}{}", failed(error.as_ref()))
        }
        Input::PersistFailed { module, error } => {
            format!("the record of {module} could not be made durable: {error}")
        }
        Input::Operator { job, module, command } => {
            format!("operator, job {}: {} {module}", job.0, command_of(*command))
        }
        Input::Reach(reach) => pinged(reach).to_owned(),
        Input::Unread { from, .. } => format!("a heartbeat of {from} that cannot be read"),
        Input::Tick => "a deadline passed".to_owned(),
    }
}

fn pinged(reach: &Reach) -> &'static str {
    match reach {
        Reach::NoLandmark => "there is nothing to ping",
        Reach::Answers { .. } => "a ping is answered",
        Reach::Silent { .. } => "no ping is answered",
    }
}

/// What a node wanted done.
pub(super) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Persist { module, .. } => format!("make the record of {module} durable"),
        Effect::Announce => "tell the peer at once".to_owned(),
        Effect::AskWitness { module, request } => {
            format!("ask the witness for {module}: {}", question(request))
        }
        Effect::Assign { module, serial, assignment } => {
            format!("assignment {serial} to the replicator of {module}: {}", task(assignment))
        }
        Effect::SetAddresses { module, held } => {
            format!("{} the addresses of {module}", if *held { "take" } else { "drop" })
        }
        Effect::RunService { module, action } => {
            format!("{} the application of {module}", action_of(*action))
        }
        Effect::RunChecks { module, serial, checks } => {
            let names: Vec<&str> = checks.iter().map(ModuleName::as_str).collect();
            let which = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("carry out these checks of {module}, serial {serial}: {which}")
        }
        Effect::PrepareResync { module, serial, source, .. } => {
            format!("run the script before the resync of {module} from {source}, serial {serial}")
        }
        Effect::HoldOff { module, serial, peer } => {
            format!("hold {peer} off for {module}, serial {serial}")
        }
        Effect::Pulse { module, pulse } => {
            format!("tell the farm {module}: {:?}, table {}", pulse.part, pulse.installed.serial)
        }
        Effect::SetShares { module, shares } => {
            let leads = if shares.leader { ", as leader" } else { "" };
            let (edition, serial) = (shares.edition, shares.serial);
            format!("have the kernel go by shares {edition} of {module}, table {serial}{leads}")
        }
        Effect::Explain(event) => {
            let mark = match event.severity {
                Severity::Info => "say",
                Severity::Warning => "warn",
                Severity::Critical => "alarm",
            };
            format!("{mark} {}: {}", event.code, event.sentence)
        }
        Effect::Answer { job, outcome } => {
            let what = match outcome {
                Outcome::Done(sentence) => format!("done: {sentence}"),
                Outcome::Failed(sentence) => format!("failed: {sentence}"),
                Outcome::Refused { why, .. } => format!("refused: {why}"),
            };
            format!("answer job {}: {what}", job.0)
        }
    }
}

fn heartbeat(heartbeat: &Heartbeat, two_way: bool) -> String {
    let each = heartbeat.reports.iter().map(|(module, report)| {
        let epoch = report.epoch.as_ref().map_or(0, |epoch| epoch.number);
        let phase = if report.phase == model::Phase::Ready { "" } else { "..." };
        format!("{module} {}{phase} in epoch {epoch}", report.role)
    });
    let reports: Vec<String> = each.collect();
    let ways = if two_way { "" } else { ", one way only" };
    format!("heartbeat of {}{ways}: {}", heartbeat.from, reports.join(", "))
}

fn question(request: &witness::Request) -> String {
    match request {
        witness::Request::Enrol { epoch, .. } => format!("enrol epoch {}", epoch.id),
        witness::Request::Swap { expected, new, .. } => {
            format!("swap epoch {expected} for {}", new.id)
        }
        witness::Request::Restate { epoch, over: None } => {
            format!("let epoch {} stand again", epoch.id)
        }
        witness::Request::Restate { epoch, over: Some(over) } => {
            format!("let epoch {} stand over {over}", epoch.id)
        }
        witness::Request::Probe { .. } => "what stands there?".to_owned(),
    }
}

fn answer(answer: &witness::Answer) -> String {
    match answer {
        witness::Answer::Granted => "granted".to_owned(),
        witness::Answer::Refused { current, .. } => format!("refused, {} stands there", current.id),
        witness::Answer::Missing => "there is no such register".to_owned(),
        witness::Answer::Locked { .. } => "grants nothing before it has heard both".to_owned(),
        witness::Answer::Half => "waits for the other node".to_owned(),
        witness::Answer::Holds { current, .. } => format!("{} stands there", current.id),
    }
}

fn said(event: &ReplicatorEvent) -> String {
    match event {
        ReplicatorEvent::Assigned { serial, number, drained } => {
            let drained = if *drained { ", drained" } else { "" };
            format!("assignment {serial} is in force at operation {number}{drained}")
        }
        ReplicatorEvent::Refused { serial, why } => format!("assignment {serial} refused: {why}"),
        ReplicatorEvent::LinkUp { session } => format!("link of session {session} is up"),
        ReplicatorEvent::LinkLost { session, why } => {
            format!("link of session {session} is lost: {why}")
        }
        ReplicatorEvent::Synced { session, number } => {
            format!("session {session} is synced at operation {number}")
        }
        ReplicatorEvent::TargetDurable { session, number } => {
            format!("target of session {session} is durable up to operation {number}")
        }
        ReplicatorEvent::TargetFailed { why, .. } => format!("the target failed: {why}"),
        ReplicatorEvent::CopyFailed { why } => format!("this copy failed: {why}"),
        ReplicatorEvent::Owners { differ } => {
            let differ = differ.as_deref().unwrap_or("all the same");
            format!("numbers of owners: {differ}")
        }
        ReplicatorEvent::Restored { why } => format!("the copy was put back: {why}"),
        ReplicatorEvent::LookedBack { clean, found } => match found {
            Some(found) => format!("looked back: {found}"),
            None => format!("looked back: {}", if *clean { "clean" } else { "not clean" }),
        },
        ReplicatorEvent::Resumed { how } => format!("resumed; the one before: {how}"),
        ReplicatorEvent::Unkept => "its keeper has ended".to_owned(),
        ReplicatorEvent::Died { how } => format!("died: {how}"),
    }
}

fn task(assignment: &Assignment) -> String {
    match assignment {
        Assignment::Close => "close".to_owned(),
        Assignment::Hold { ending: Ending::Drain } => "hold once drained".to_owned(),
        Assignment::Hold { ending: Ending::Cut } => "hold at once".to_owned(),
        Assignment::Receive { session, source, quarantine: _ } => {
            format!("receive session {session} from {source}")
        }
        Assignment::Serve(serve) => {
            let needed: Vec<&str> = serve.required.iter().map(model::NodeName::as_str).collect();
            let needed = if needed.is_empty() { "nobody" } else { &needed.join(" ") };
            let session = serve.session.as_ref().map(|session| {
                let how = if session.resync { ", resync" } else { "" };
                format!(", session {} to {}{how}", session.id, session.target)
            });
            let session = session.unwrap_or_default();
            format!("serve epoch {}, needing {needed}{session}", serve.epoch)
        }
    }
}

fn failed(error: Option<&String>) -> String {
    error.map_or(String::new(), |error| format!(", but: {error}"))
}

fn action_of(action: ServiceAction) -> &'static str {
    match action {
        ServiceAction::Start => "start",
        ServiceAction::Stop => "stop",
        ServiceAction::Kill => "kill",
    }
}

fn command_of(command: Command) -> &'static str {
    match command {
        Command::Start => "start",
        Command::Stop => "stop",
        Command::StopAll => "stop everywhere",
        Command::Switchover => "switch over",
        Command::ForcePrimary => "force primary",
        Command::Discard => "discard this copy",
        Command::Pause(_) => "pause",
        Command::Resume => "resume",
        Command::Maintain(_) => "begin maintenance",
        Command::EndMaintenance => "end maintenance",
    }
}
