//! Checks of an application: their tables, their defaults, and those that need no table.
//!
//! Each program that Evenkeel starts and each unit is watched, written or not, so that the smallest
//! file is guarded too. How a check is carried out is the shell's matter, what follows from its
//! result that of the cluster's rules.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cluster_file::twice;
use super::reader::{Keys, Problem, Report, Section, allowed};
use super::values;
use super::{CommandConfig, ModuleKind};
use crate::ModuleName;

/// A check of the application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfig {
    /// Its name, unique in the module.
    pub name: ModuleName,
    /// What is looked at.
    pub kind: CheckKind,
    /// Time from one look to the next.
    pub interval: Duration,
    /// How long a look may take.
    pub timeout: Duration,
    /// How long after a start of the application failures do not count, as long as the check has
    /// not been up once; for a process, how long it may take to appear.
    pub grace: Duration,
    /// So many looks in a row must fail before the check is down; a death counts at once.
    pub fail_after: u32,
    /// What is done when it is down.
    pub action: CheckAction,
}

/// What a check looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckKind {
    /// A process of the application lives.
    Process(Watched),
    /// A connection to this address is accepted.
    Tcp(SocketAddr),
    /// A program ends with status 0.
    Exec {
        /// Program (an absolute path) and arguments.
        run: Vec<String>,
        /// User to run it as; root when absent.
        user: Option<String>,
    },
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckKind::Process(Watched::Command(name)) => write!(f, "process of command {name}"),
            CheckKind::Process(Watched::Service(unit)) => write!(f, "process of unit {unit}"),
            CheckKind::Process(Watched::PidFile(path)) => {
                write!(f, "process in {}", path.display())
            }
            CheckKind::Process(Watched::Program(name)) => write!(f, "process that runs {name}"),
            CheckKind::Tcp(address) => write!(f, "tcp {address}"),
            CheckKind::Exec { run, .. } => write!(f, "exec {}", run.join(" ")),
        }
    }
}

/// How the process is found that a check watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    /// It is what Evenkeel started for this command of the module.
    Command(ModuleName),
    /// It is the main process of this unit of the module.
    Service(String),
    /// Its id is in this file.
    PidFile(PathBuf),
    /// Its executable has this file name, and it belongs to the application.
    Program(String),
}

/// What is done when a check is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckAction {
    /// It is shown.
    None,
    /// The application is stopped and started where it is.
    Restart,
    /// The peer takes over, if it can; else as with `Restart`.
    Failover,
    /// The application is stopped until the check is up again.
    Wait,
    /// The module is stopped on this node.
    Stop,
}

const CHECK: Keys = Keys {
    place: "[[check]]",
    known: &[
        "kind",
        "name",
        "interval",
        "timeout",
        "grace",
        "fail_after",
        "action",
        "command",
        "service",
        "pid_file",
        "program",
        "address",
        "port",
        "run",
        "user",
    ],
    later: &[],
};
/// Keys of every kind.
const COMMON: &[&str] = &["kind", "name", "interval", "grace", "action"];
/// Keys that say which process is watched: exactly one of them is given.
const WATCHED: &[&str] = &["command", "service", "pid_file", "program"];
const KINDS: &[&str] = &["process", "tcp", "exec"];
const KINDS_LATER: &[&str] = &["http", "ping", "interface", "ip", "disk", "module"];
const ACTIONS: &[(&str, CheckAction)] = &[
    ("restart", CheckAction::Restart),
    ("failover", CheckAction::Failover),
    ("wait", CheckAction::Wait),
    ("stop", CheckAction::Stop),
    ("none", CheckAction::None),
];

const CHECKS_MAX: usize = 64;
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const INTERVAL: Duration = Duration::from_secs(5);
/// A process need only be looked for until it is found; after that it is waited for.
const INTERVAL_PROCESS: Duration = Duration::from_secs(1);
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(5);
const GRACE_MAX: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(30);
const FAIL_AFTER_MAX: u32 = 100;
const FAIL_AFTER: u32 = 2;

/// The module's checks: those of the file, in its order, and then one for each command and unit
/// that none of them watches.
pub(super) fn read_checks(
    report: &mut Report<'_>,
    root: &Section<'_, '_>,
    kind: Option<ModuleKind>,
    commands: &[CommandConfig],
    services: &[String],
) -> Vec<CheckConfig> {
    let mut checks: Vec<CheckConfig> = Vec::new();
    let sections = root.sections(report, "check", &CHECK);
    if sections.len() > CHECKS_MAX {
        let problem = format!("{} checks are more than {CHECKS_MAX}", sections.len());
        report.add(root.span_of("check"), Problem::new(problem));
    }
    for section in sections {
        refuse_action(report, &section, kind);
        let Some(check) = read_check(report, &section, commands, services) else { continue };
        if checks.iter().any(|known| known.name == check.name) {
            let problem = twice("check", check.name.as_str());
            report.add(section.span_of("name"), problem);
            continue;
        }
        checks.push(check);
    }
    let of_commands = commands.iter().map(|command| Watched::Command(command.name.clone()));
    let of_services = services.iter().map(|unit| Watched::Service(unit.clone()));
    for watched in of_services.chain(of_commands) {
        let kind = CheckKind::Process(watched);
        if checks.iter().any(|check| check.kind == kind) {
            continue;
        }
        if let Some(name) = free_name(&checks, &kind) {
            checks.push(CheckConfig {
                name,
                kind,
                interval: INTERVAL_PROCESS,
                timeout: TIMEOUT,
                grace: GRACE,
                fail_after: 1,
                action: CheckAction::Restart,
            });
        }
    }
    checks
}

fn read_check(
    report: &mut Report<'_>,
    section: &Section<'_, '_>,
    commands: &[CommandConfig],
    services: &[String],
) -> Option<CheckConfig> {
    let word = section.required(report, "kind", "kind = \"tcp\"", kind_word);
    let name = section.text(report, "name", values::name::<ModuleName>);
    let wrong_name = name.is_none() && section.has("name");
    let duration = |least, most| move |text: &str| values::duration(text, least, most);
    let interval = section.text(report, "interval", duration(INTERVAL_MIN, INTERVAL_MAX));
    let timeout = section.text(report, "timeout", duration(TIMEOUT_MIN, TIMEOUT_MAX));
    let grace = section.text(report, "grace", duration(Duration::ZERO, GRACE_MAX));
    let fail_after = section.whole(report, "fail_after", 1, FAIL_AFTER_MAX);
    let action = section.text(report, "action", |text| values::word(text, ACTIONS));
    let word = word?.value;
    let kind = match word {
        "process" => read_process(report, section, commands, services),
        "tcp" => read_tcp(report, section),
        _ => read_exec(report, section),
    };
    let is_process = word == "process";
    let action_value = action.as_ref().map_or(CheckAction::Restart, |action| action.value);
    if let Some(action) = action.filter(|action| is_process && action.value == CheckAction::Wait) {
        let problem = Problem::new("a process of the application cannot be waited for").help(
            "it is not up before the application is started; allowed here: restart, \
                   failover, stop, none",
        );
        report.add(Some(action.span), problem);
    }
    let kind = kind?;
    let name = match name {
        Some(name) => name.value,
        None if wrong_name => return None,
        None => match default_name(&kind) {
            Some(name) => name,
            None => {
                section.missing(report, "name", "name = \"NAME\"");
                return None;
            }
        },
    };
    let default_interval = if is_process { INTERVAL_PROCESS } else { INTERVAL };
    // What the application waits for does not depend on its start.
    let default_grace = if action_value == CheckAction::Wait { Duration::ZERO } else { GRACE };
    Some(CheckConfig {
        name,
        kind,
        interval: interval.map_or(default_interval, |interval| interval.value),
        timeout: timeout.map_or(TIMEOUT, |timeout| timeout.value),
        grace: grace.map_or(default_grace, |grace| grace.value),
        fail_after: fail_after.unwrap_or(if is_process { 1 } else { FAIL_AFTER }),
        action: action_value,
    })
}

/// A light module has nobody to leave the application to.
fn refuse_action(report: &mut Report<'_>, section: &Section<'_, '_>, kind: Option<ModuleKind>) {
    if kind != Some(ModuleKind::Light) || !section.is_text("action", "failover") {
        return;
    }
    let problem = Problem::new("no other node can take over what a light module runs")
        .help("allowed here: restart, wait, stop, none");
    report.add(section.span_of("action"), problem);
}

fn kind_word(text: &str) -> Result<&'static str, Problem> {
    if let Some(known) = KINDS.iter().find(|kind| **kind == text) {
        return Ok(known);
    }
    if KINDS_LATER.contains(&text) {
        let message = format!("kind \"{text}\" is not supported in this version");
        return Err(Problem::new(message).help(format!("allowed here: {}", KINDS.join(", "))));
    }
    Err(Problem::new(format!("there is no kind \"{text}\"")).help(allowed(text, KINDS)))
}

/// Refuses keys that are those of another kind.
fn only(report: &mut Report<'_>, section: &Section<'_, '_>, kind: &str, own: &[&str]) {
    let known = [COMMON, own].concat();
    for key in CHECK.known.iter().filter(|key| !known.contains(*key)) {
        if section.has(key) {
            let problem = Problem::new(format!("`{key}` means nothing to a check of kind {kind}"));
            let problem = match *key {
                "fail_after" => problem.help("remove it: the death of a process counts at once"),
                _ => problem.help(format!("allowed with it: {}", known.join(", "))),
            };
            report.add(section.span_of(key), problem);
        }
    }
}

fn read_process(
    report: &mut Report<'_>,
    section: &Section<'_, '_>,
    commands: &[CommandConfig],
    services: &[String],
) -> Option<CheckKind> {
    only(report, section, "process", WATCHED);
    let given: Vec<&&str> = WATCHED.iter().filter(|key| section.has(key)).collect();
    match given.as_slice() {
        [] => {
            let problem = Problem::new("this check does not say which process it watches").help(
                "add one of: command = \"NAME\" (of a [[command]]), service = \"UNIT\" (of \
                 `services`), pid_file = \"/run/PROG.pid\", program = \"PROG\"",
            );
            report.missing(section.span.clone(), problem);
        }
        [_] => {}
        [_, second, ..] => {
            let problem =
                Problem::new(format!("a check watches one process: `{second}` is too much"))
                    .help("write another [[check]] for it");
            report.add(section.span_of(second), problem);
            return None;
        }
    }
    let commands: Vec<&str> = commands.iter().map(|command| command.name.as_str()).collect();
    let command = section.text(report, "command", |text| {
        among(text, &commands, "[[command]]").and_then(values::name::<ModuleName>)
    });
    let units: Vec<&str> = services.iter().map(String::as_str).collect();
    let service = section.text(report, "service", |text| {
        among(text, &units, "unit in `services`").map(str::to_owned)
    });
    let pid_file = section.text(report, "pid_file", values::file);
    let program = section.text(report, "program", values::file_name);
    let watched = command
        .map(|command| Watched::Command(command.value))
        .or_else(|| service.map(|service| Watched::Service(service.value)))
        .or_else(|| pid_file.map(|file| Watched::PidFile(file.value)))
        .or_else(|| program.map(|program| Watched::Program(program.value)));
    watched.map(CheckKind::Process)
}

/// One of the names that the module has.
fn among<'t>(text: &'t str, known: &[&str], what: &str) -> Result<&'t str, Problem> {
    if known.contains(&text) {
        return Ok(text);
    }
    let problem = Problem::new(format!("the module has no {what} called `{text}`"));
    Err(match known {
        [] => problem.help("it has none at all"),
        _ => problem.help(allowed(text, known)),
    })
}

fn read_tcp(report: &mut Report<'_>, section: &Section<'_, '_>) -> Option<CheckKind> {
    only(report, section, "tcp", &["timeout", "fail_after", "address", "port"]);
    let address = section.text(report, "address", values::host_address);
    let wrong = address.is_none() && section.has("address");
    if !section.has("port") {
        section.missing(report, "port", "port = 5432");
    }
    let port = section.whole(report, "port", 1, u32::from(u16::MAX));
    let port = u16::try_from(port?).ok()?;
    let address = address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.value);
    (!wrong).then(|| CheckKind::Tcp(SocketAddr::new(address, port)))
}

fn read_exec(report: &mut Report<'_>, section: &Section<'_, '_>) -> Option<CheckKind> {
    only(report, section, "exec", &["timeout", "fail_after", "run", "user"]);
    let run = super::module_file::read_run(report, section, "run");
    let user = section.text(report, "user", values::filled);
    (!run.is_empty()).then(|| CheckKind::Exec { run, user: user.map(|user| user.value) })
}

/// The name of a check that gives none: that of what it looks at.
fn default_name(kind: &CheckKind) -> Option<ModuleName> {
    let text = match kind {
        CheckKind::Process(Watched::Command(name)) => name.as_str().to_owned(),
        CheckKind::Process(Watched::Service(name) | Watched::Program(name)) => name.clone(),
        CheckKind::Process(Watched::PidFile(path)) => path.file_stem()?.to_str()?.to_owned(),
        CheckKind::Tcp(address) => format!("tcp-{}", address.port()),
        CheckKind::Exec { run, .. } => run.first()?.rsplit('/').next()?.to_owned(),
    };
    let text = text.strip_suffix(".service").unwrap_or(&text).to_ascii_lowercase();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let text: String = text.chars().map(plain).collect();
    ModuleName::new(text.trim_matches('-')).ok()
}

/// A name that no check has yet, for one that stands in no file.
fn free_name(checks: &[CheckConfig], kind: &CheckKind) -> Option<ModuleName> {
    let is_free = |name: &ModuleName| checks.iter().all(|check| check.name != *name);
    let name = default_name(kind).or_else(|| ModuleName::new("process").ok())?;
    let more = (1..).map(|count: u32| ModuleName::new(&format!("process-{count}")).ok());
    std::iter::once(Some(name)).chain(more).take(CHECKS_MAX * 4).flatten().find(is_free)
}
