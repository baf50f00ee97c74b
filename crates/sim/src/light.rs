//! A light module beside the mirror: on each host it has an application of its own, with one check
//! for each action that a light module may have, and a record that lies beside the mirror's.
//!
//! What is promised of it is checked as its effects are performed. It shares the machine with the
//! mirror, whose daemon, disk and power it depends on, but none of the mirror's faults is its own.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::effect::{Effect, ServiceAction};
use cluster::input::{BootModule, Command, DataState, Running, ScriptError};
use cluster::status::ModuleStatus;
use cluster::{Input, Record};
use model::config::{ModuleConfig, ModuleKind};
use model::{ModuleName, Phase, Role, Time};

use crate::application;
use crate::promises::Promise;
use crate::world::{Happening, World};

/// How long addresses take to be taken or dropped.
const ADDRESS: Duration = Duration::from_millis(5);
/// How long the application takes to start or stop.
const SERVICE: Duration = Duration::from_millis(100);
/// How long a check takes to find something out.
const LOOK: Duration = Duration::from_millis(20);
/// How often a host is looked at that must settle: every two seconds.
const SETTLE_ROUNDS: u32 = 60;
/// Its checks, and what is done when they are down.
pub(crate) const CHECKS: [(&str, &str); 4] =
    [("program", "restart"), ("database", "wait"), ("disk", "stop"), ("lamp", "none")];

/// A host's part of the light module.
#[derive(Debug, Clone)]
pub(crate) struct Light {
    pub(crate) record: Record,
    /// The application runs, or is being started or stopped.
    pub(crate) service: bool,
    /// It is being started.
    pub(crate) starting: bool,
    pub(crate) addresses: bool,
    /// The process that the application's last stop has not ended yet, until then.
    ends: Time,
    /// What is done to the application lasts until then.
    busy: Time,
    serial: u64,
    running: BTreeSet<ModuleName>,
    failing: BTreeSet<ModuleName>,
    /// Checks that fail until the application is started anew.
    crashed: BTreeSet<ModuleName>,
    broken: bool,
    /// Restarts since the operator's last word.
    restarts: u32,
    shown: (Role, Phase),
}

impl Default for Light {
    fn default() -> Light {
        Light {
            record: Record::default(),
            service: false,
            starting: false,
            addresses: false,
            ends: Time::ZERO,
            busy: Time::ZERO,
            serial: 0,
            running: BTreeSet::new(),
            failing: BTreeSet::new(),
            crashed: BTreeSet::new(),
            broken: false,
            restarts: 0,
            shown: (Role::Stop, Phase::Ready),
        }
    }
}

impl Light {
    /// Every process of the host has died.
    pub(crate) fn killed(&mut self) {
        self.service = false;
        self.addresses = false;
        self.ends = Time::ZERO;
        self.crashed.clear();
    }

    /// The machine is another one.
    pub(crate) fn replaced(&mut self) {
        *self = Light { shown: self.shown, ..Light::default() };
    }

    /// A daemon that begins carries out no check, and has ended what the one before it was just
    /// stopping.
    pub(crate) fn new_daemon(&mut self) {
        self.running.clear();
        if !self.service {
            self.ends = Time::ZERO;
        }
    }

    fn fails(&self, check: &ModuleName) -> bool {
        self.failing.contains(check) || self.crashed.contains(check)
    }
}

/// The light module.
#[must_use]
#[allow(clippy::expect_used, reason = "the name is a constant, and valid")]
pub(crate) fn web() -> ModuleName {
    ModuleName::new("web").expect("a valid name")
}

impl World {
    fn light_config(&self) -> ModuleConfig {
        let checks = CHECKS.iter().filter_map(|(name, action)| {
            // The names and actions are constants, and valid.
            application::check(name, action).ok()
        });
        let checks = checks.collect();
        let mut config =
            ModuleConfig { name: web(), kind: ModuleKind::Light, checks, ..self.module_config() };
        config.scripts.before_resync = None;
        config.failover.prefer = None;
        config
    }

    /// What a host's daemon runs it with.
    fn light_config_of(&self, i: usize) -> ModuleConfig {
        let parsed = self.in_use(i).and_then(|parsed| parsed.module(&web()).cloned());
        parsed.unwrap_or_else(|| self.light_config())
    }

    /// Whether a host's daemon knows of it.
    fn has_light(&self, i: usize) -> bool {
        let known = self.in_use(i).is_none_or(|parsed| parsed.module(&web()).is_some());
        known && self.hosts[i].light.is_some()
    }

    /// The light module as a daemon finds it that starts on a host.
    pub(crate) fn light_boot(&self, i: usize) -> Option<BootModule> {
        let host = &self.hosts[i];
        let light = host.light.as_ref().filter(|_| self.has_light(i))?;
        let assignment = cluster::effect::Assignment::Close;
        let running =
            Running { assignment, addresses: light.addresses, service: light.service, farm: None };
        Some(BootModule {
            config: self.light_config_of(i),
            digest: std::collections::BTreeMap::new(),
            record: light.record.clone(),
            data: DataState::Empty,
            running: (light.addresses || light.service).then_some(running),
        })
    }

    /// Performs what is wanted for the light module.
    pub(crate) fn light_effect(&mut self, i: usize, effect: Effect) {
        let most = self.light_config_of(i).failover.max_restarts;
        let Some(light) = &mut self.hosts[i].light else { return };
        match effect {
            Effect::Persist { record, .. } => light.record = *record,
            Effect::SetAddresses { held, .. } => {
                light.addresses = held;
                let set = Input::AddressesSet { module: web(), held, error: None };
                self.after(ADDRESS, Happening::Give(i, set));
            }
            Effect::RunService { action, .. } => self.light_service(i, action),
            Effect::RunChecks { serial, checks, .. } => {
                light.serial = serial;
                light.running.clone_from(&checks);
                for check in checks {
                    self.light_look(i, &check);
                }
            }
            Effect::Explain(event) => {
                let again = event.code == "restarts";
                light.restarts += u32::from(again);
                let count = light.restarts;
                let name = self.hosts[i].name.clone();
                self.note(&format!("{name} web {}: {}", event.code, event.sentence));
                self.events.push((i, event));
                if again && count > most {
                    let what = format!("{name} restarts it for the {count}th time");
                    self.violate(Promise::RestartsAreCounted, what);
                }
            }
            Effect::Assign { .. }
            | Effect::AskWitness { .. }
            | Effect::HoldOff { .. }
            | Effect::Pulse { .. }
            | Effect::SetShares { .. }
            | Effect::PrepareResync { .. } => {
                let what = format!("node{} wants what only another kind may want", i + 1);
                self.violate(Promise::ALightModuleRunsOnce, what);
            }
            Effect::Announce | Effect::Answer { .. } => {}
        }
    }

    fn light_service(&mut self, i: usize, action: ServiceAction) {
        let (now, name) = (self.now, self.hosts[i].name.clone());
        let Some(light) = &mut self.hosts[i].light else { return };
        let starts = action == ServiceAction::Start;
        let twice = starts && (light.service || now < light.ends);
        light.service = starts;
        light.starting = starts;
        light.busy = now + SERVICE;
        if starts {
            light.crashed.clear();
        } else {
            light.ends = now + SERVICE;
        }
        let error = (starts && light.broken).then(|| ScriptError {
            how: "the start script ended with exit status: 1".to_owned(),
            said: vec!["it said: it is broken".to_owned()],
        });
        let done = Input::ServiceDone { module: web(), action, error };
        self.after(SERVICE, Happening::Give(i, done));
        if twice {
            let what = format!("{name} starts it while it runs");
            self.violate(Promise::ALightModuleRunsOnce, what);
        }
    }

    fn light_look(&mut self, i: usize, check: &ModuleName) {
        let Some(light) = self.hosts[i].light.as_ref() else { return };
        if !light.running.contains(check) {
            return;
        }
        let up = !light.fails(check);
        let evidence = if up { Vec::new() } else { vec!["nobody answers".to_owned()] };
        let (module, serial, check) = (web(), light.serial, check.clone());
        let result = Input::CheckResult { module, serial, check, up, evidence };
        self.after(LOOK, Happening::Give(i, result));
    }

    /// Something happens to the light module of a host: a command of a story.
    ///
    /// # Errors
    /// The command is none.
    pub(crate) fn befall_light(&mut self, i: usize, words: &[&str]) -> Result<(), String> {
        let named = |check: &&str| ModuleName::new(check).map_err(|error| error.to_string());
        let may_come = self.hosts[i].files.is_some();
        let Some(light) = &mut self.hosts[i].light else {
            // With another configuration.
            return if may_come { Ok(()) } else { Err("there is no light module".to_owned()) };
        };
        let (check, command) = match words {
            ["crash", check] => {
                let check = named(check)?;
                light.crashed.insert(check.clone());
                (Some(check), None)
            }
            ["fail-check", check] => {
                let check = named(check)?;
                light.failing.insert(check.clone());
                (Some(check), None)
            }
            ["mend-check", check] => {
                let check = named(check)?;
                light.failing.remove(&check);
                (Some(check), None)
            }
            ["break"] => {
                light.broken = true;
                (None, None)
            }
            ["mend"] => {
                light.broken = false;
                (None, None)
            }
            ["start"] => (None, Some(Command::Start)),
            ["stop"] => (None, Some(Command::Stop)),
            ["switchover"] => (None, Some(Command::Switchover)),
            ["pause"] => (None, Some(Command::Pause(Duration::from_secs(3600)))),
            ["resume"] => (None, Some(Command::Resume)),
            ["maintain"] => (None, Some(Command::Maintain(Duration::from_secs(3600)))),
            ["maintained"] => (None, Some(Command::EndMaintenance)),
            _ => return Err(format!("there is no command `light {}`", words.join(" "))),
        };
        if let Some(command) = command {
            self.command_of(i, web(), command);
        }
        if let Some(check) = check {
            self.light_look(i, &check);
        }
        Ok(())
    }

    /// The operator's word gives the application all its restarts again, once the node hears it.
    pub(crate) fn light_hears(&mut self, i: usize, input: &Input) {
        let Input::Operator { module, command: Command::Start | Command::Stop, .. } = input else {
            return;
        };
        if let Some(light) = self.hosts[i].light.as_mut().filter(|_| *module == web()) {
            light.restarts = 0;
        }
    }

    /// Nothing of it fails any more.
    pub(crate) fn mend_light(&mut self, i: usize) {
        let Some(light) = &mut self.hosts[i].light else { return };
        light.broken = false;
        let failing = std::mem::take(&mut light.failing);
        let crashed = std::mem::take(&mut light.crashed);
        for check in failing.union(&crashed) {
            self.light_look(i, check);
        }
    }

    /// What a node would show of the light module.
    #[must_use]
    pub fn light_status(&self, i: usize) -> Option<ModuleStatus> {
        self.hosts[i].light.as_ref()?;
        let node = self.hosts[i].node.as_ref()?;
        node.status_of(self.own_time(i), &web())
    }

    /// Whether it runs where it is meant to, and does not where it is not.
    pub(crate) fn light_settled(&self, i: usize) -> bool {
        let Some(light) = &self.hosts[i].light else { return true };
        if !self.has_light(i) {
            return !light.service && !light.addresses;
        }
        let node = self.hosts[i].node.as_ref();
        let Some(shown) = node.and_then(|node| node.role(&web())) else { return false };
        let up = shown == (Role::Up, Phase::Ready);
        let stopped = shown == (Role::Stop, Phase::Ready);
        let started = light.record.started;
        (if started { up } else { stopped })
            && light.service == started
            && light.addresses == started
            && self.now >= light.busy
    }

    pub(crate) fn show_light(&mut self, i: usize) {
        let Some(shown) = self.hosts[i].node.as_ref().and_then(|node| node.role(&web())) else {
            return;
        };
        let Some(light) = &mut self.hosts[i].light else { return };
        if shown != light.shown {
            light.shown = shown;
            let name = self.hosts[i].name.clone();
            self.note(&format!("{name} web {} {:?}", shown.0, shown.1));
        }
    }
}

/// Runs until the light module is on each host what it is meant to be.
pub(crate) fn settle(world: &mut World) {
    for _ in 0..SETTLE_ROUNDS {
        if world.violation.is_some() || (0..2).all(|i| world.light_settled(i)) {
            return;
        }
        world.run_for(Duration::from_secs(2));
    }
    let shown = [0, 1].map(|i| {
        let status = world.light_status(i)?;
        let reasons = status.reasons.into_iter().map(|reason| reason.code).collect::<Vec<_>>();
        Some(format!("{} {:?} {}", status.role, status.phase, reasons.join(" ")))
    });
    world.violate(Promise::ALightModuleComesUp, format!("it does not: {shown:?}"));
}

/// Whether a host shows the light module so.
///
/// # Errors
/// It does not.
pub(crate) fn expect(world: &World, i: usize, words: &[&str]) -> Result<(), String> {
    let n = format!("node{}", i + 1);
    let Some(status) = world.light_status(i) else { return Err(format!("{n} is down")) };
    let has = |code: &str| status.reasons.iter().any(|reason| reason.code == code);
    let phase = if status.phase == Phase::Ready { "" } else { "..." };
    let role = format!("{}{phase}", status.role);
    let met = match words {
        ["reason", code] => has(code),
        ["no", "reason", code] => !has(code),
        [shown] => role == *shown,
        other => return Err(format!("cannot expect {other:?} of a light module")),
    };
    let what = || format!("{n} shows {role} and {:?} instead", status.reasons);
    if met { Ok(()) } else { Err(what()) }
}
