//! The watchdog of this machine, fed by the main loop and by nobody else: what resets a machine
//! whose daemon stands still while it serves, or that could not let go.
//!
//! What is fed, and when it is not, is decided by `cluster::watchdog`; here it is carried out and
//! told. Only where `[watchdog]` is configured anything is opened. A device that is not to be had
//! is told, and is no reason not to serve.

mod device;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cluster::effect::{Effect, Event};
use cluster::input::{BootModule, Input};
use cluster::watchdog::{Act, Open, Policy, Stand, Verdict, act};
use model::config::WatchdogConfig;
use model::{BootId, ModuleName, Reason, Severity, Time};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock;
use crate::daemon::watchdog::device::Device;
use crate::durable;

/// The watchdog, as the main loop has it.
pub(super) struct Watchdog {
    config: Option<WatchdogConfig>,
    policy: Policy,
    device: Option<Device>,
    fed: Time,
    /// When it was tried to open last.
    tried: Option<Time>,
    /// What it called itself when it was open last, and its time then.
    identity: Option<String>,
    timeout: Duration,
    /// Whether it stops when it is told, as far as was known when it was looked at last.
    stops: bool,
    note: Note,
    /// Why it is not as it should be.
    reason: Option<Reason>,
    untold: Vec<Event>,
}

/// What a daemon that follows must know: a device runs on when its daemon dies, and whoever follows
/// may be configured to use another one, or none.
struct Note {
    file: PathBuf,
    noted: Option<Noted>,
    /// This daemon has found one that runs, and its main loop has not turned yet.
    starting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    boot: Option<BootId>,
    watchdog: WatchdogConfig,
    /// A daemon has fed it at its start, and is not known to have come any further.
    #[serde(default)]
    starting: bool,
}

impl Watchdog {
    /// Takes over what an earlier daemon of this boot has left running. That comes before all else
    /// of a start, so that the whole time of the device is left for it. After a start that failed
    /// or was cut short it does not begin anew: who never starts keeps no machine from its reset.
    pub(super) fn take_over(config: Option<WatchdogConfig>, note: PathBuf) -> Watchdog {
        let noted = durable::read::<Noted>(&note).ok().flatten();
        let noted = noted.filter(|noted| noted.boot.is_some() && noted.boot == this_boot());
        let left = noted.clone().map(|noted| noted.watchdog);
        let in_vain = noted.as_ref().is_some_and(|noted| noted.starting);
        let same =
            config.as_ref().map(|config| &config.device) == left.as_ref().map(|left| &left.device);
        let timeouts = [&config, &left].map(|known| known.as_ref().map(|known| known.timeout));
        let mut watchdog = Watchdog {
            timeout: timeouts.into_iter().flatten().max().unwrap_or_default(),
            stops: config.as_ref().is_none_or(|config| device::stops(&config.device)),
            config,
            policy: Policy::default(),
            device: None,
            fed: clock::now(),
            tried: None,
            identity: None,
            note: Note { file: note, noted, starting: left.is_some() },
            reason: None,
            untold: Vec::new(),
        };
        match left {
            Some(left) if same => {
                watchdog.note.write(Some(left));
                if !in_vain {
                    watchdog.open(clock::now());
                }
            }
            Some(left) => watchdog.leave(&left),
            None => {}
        }
        watchdog
    }

    /// What is in the node's hands when it starts, and of what it was to end and could not.
    pub(super) fn begin<'a>(
        &mut self,
        now: Time,
        modules: &[BootModule],
        left: impl Iterator<Item = &'a ModuleName>,
    ) {
        self.policy = Policy::of(modules);
        left.for_each(|module| self.policy.left(now, module));
    }

    /// This is about to be done.
    pub(super) fn order(&mut self, now: Time, effect: &Effect) {
        if self.config.is_some() {
            self.policy.order(now, effect);
        }
    }

    /// This has happened.
    pub(super) fn hear(&mut self, input: &Input) {
        if self.config.is_some() {
            self.policy.hear(input);
        }
    }

    /// The main loop turns. What is to be told of it.
    #[must_use]
    pub(super) fn tick(&mut self, now: Time) -> Vec<Event> {
        if std::mem::take(&mut self.note.starting) {
            let left = self.note.noted.clone();
            self.note.write(left.map(|noted| noted.watchdog));
        }
        if self.config.is_some() {
            let verdict = self.policy.verdict(now);
            let open = self.device.as_ref();
            let stand = Stand {
                open: open.map(|device| Open { timeout: device.timeout, fed: self.fed }),
                stops: self.stops,
                runs: self.runs(),
                tried: self.tried,
                failed: self.reason.is_some(),
            };
            match act(now, &verdict, stand) {
                Act::Nothing => {}
                Act::Open => self.open(now),
                Act::Probe => {
                    self.open(now);
                    // One whose driver came only now may be of those that do not.
                    if self.stops {
                        self.stop();
                    }
                }
                Act::Feed => self.feed(now),
                Act::Stop => self.stop(),
            }
            self.tell_of(now, &verdict);
        }
        std::mem::take(&mut self.untold)
    }

    /// One step of many is done: the next one has the whole time of the device.
    pub(super) fn keep(&mut self, now: Time) {
        let Some(device) = &self.device else { return };
        let open = Open { timeout: device.timeout, fed: self.fed };
        // It is opened and stopped between the inputs only: what is in hand changes until then.
        let stand = Stand { open: Some(open), stops: false, ..Stand::default() };
        if act(now, &self.policy.verdict(now), stand) == Act::Feed {
            self.feed(now);
        }
    }

    /// The daemon ends in order, and what it started goes on: nobody will feed the device.
    pub(super) fn end(&mut self) {
        if self.device.is_some() {
            self.stop();
        }
    }

    /// Another daemon follows in this process: it has the whole time of the device for that.
    pub(super) fn hand_on(&mut self) {
        let starves = matches!(self.policy.verdict(clock::now()), Verdict::Starve(_));
        if !starves && self.device.is_some() {
            self.feed(clock::now());
        }
    }

    /// For the status.
    pub(super) fn status(&self, now: Time) -> Value {
        let Some(config) = &self.config else { return Value::Null };
        let verdict = self.policy.verdict(now);
        let state = match (&self.device, &verdict) {
            (_, Verdict::Starve(_)) => "starves",
            (Some(_), Verdict::Feed | Verdict::Idle) => "armed",
            (None, _) if self.runs() => "unfed",
            (None, _) if self.reason.is_some() => "absent",
            (None, Verdict::Feed | Verdict::Idle) => "ready",
        };
        json!({
            "device": config.device,
            "timeout_ms": self.timeout.as_millis(),
            "identity": self.identity,
            "state": state,
            "reasons": self.reason.iter().collect::<Vec<_>>(),
        })
    }

    fn open(&mut self, now: Time) {
        let Some(config) = self.config.clone() else { return };
        self.tried = Some(now);
        match Device::open(&config.device, config.timeout) {
            Ok(device) => {
                self.identity = Some(device.identity.clone());
                self.timeout = device.timeout;
                self.fed = now;
                self.reason = None;
                self.stops = device::stops(&config.device);
                if !device.outlives {
                    eprintln!("! {} stops when its daemon dies", config.device.display());
                }
                self.device = Some(device);
                self.note.write(Some(config));
            }
            Err(error) => self.fail(now, &error, "cannot be opened"),
        }
    }

    fn feed(&mut self, now: Time) {
        let Some(device) = &mut self.device else { return };
        match device.feed() {
            Ok(()) => {
                self.fed = now;
                self.reason = None;
            }
            Err(error) => {
                self.fail(now, &error, "cannot be fed");
                // One whose driver has gone never takes food again. Another one may be there by
                // now, and one that is opened anew is fed by that.
                self.device = None;
                self.open(now);
            }
        }
    }

    /// Whether the device runs, as far as is known, open or not.
    fn runs(&self) -> bool {
        let noted = self.note.noted.as_ref().map(|noted| &noted.watchdog.device);
        noted.is_some() && noted == self.config.as_ref().map(|config| &config.device)
    }

    fn stop(&mut self) {
        let Some(device) = self.device.take() else { return };
        match device.stop() {
            Ok(()) if self.stops => self.note.write(None),
            // It runs on, as a following daemon must know.
            Ok(()) => eprintln!("! the watchdog does not stop: this machine will be reset"),
            Err(error) => eprintln!("! the watchdog cannot be stopped: {error}"),
        }
    }

    /// Stops one that is not configured any more.
    fn leave(&mut self, left: &WatchdogConfig) {
        let opened = Device::open(&left.device, left.timeout);
        match opened.and_then(Device::stop) {
            Ok(()) if device::stops(&left.device) => self.note.write(None),
            Ok(()) => {
                eprintln!("! {} does not stop: this machine will be reset", left.device.display())
            }
            Err(error) => eprintln!("! {} cannot be stopped: {error}", left.device.display()),
        }
    }

    fn fail(&mut self, now: Time, error: &io::Error, what: &str) {
        // One that runs would have reset this machine by then.
        if self.runs() && now.since(self.fed) > self.timeout * 2 {
            self.note.write(None);
        }
        let Some(config) = &self.config else { return };
        let device = config.device.display();
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        let (code, why, next) = match errno {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => (
                "watchdog-missing",
                format!("there is no watchdog {device}"),
                "load its driver, such as `modprobe softdog`, or leave [watchdog] out",
            ),
            Some(Errno::BUSY) => (
                "watchdog-busy",
                format!("another program has the watchdog {device}"),
                "systemd has it with RuntimeWatchdogSec in /etc/systemd/system.conf: take that \
                 out, or [watchdog]",
            ),
            _ => (
                "watchdog-failed",
                format!("the watchdog {device} {what}"),
                "see to the device and its driver",
            ),
        };
        let (severity, then) = if self.runs() {
            let seconds = self.timeout.as_secs();
            let then = format!(
                "it was running, and may reset this machine within {seconds} seconds; it is opened \
                 anew every second"
            );
            (Severity::Critical, then)
        } else {
            let then = "this machine is not reset if its daemon stands still";
            (Severity::Warning, then.to_owned())
        };
        let sentence = format!("{why}: {then}");
        self.because(now, (code, severity), sentence, error.to_string(), next);
    }

    /// That the machine is about to be reset, or is not to be any more.
    fn tell_of(&mut self, now: Time, verdict: &Verdict) {
        const CODE: &str = "watchdog-starves";
        let starves = self.reason.as_ref().is_some_and(|reason| reason.code == CODE);
        match (verdict, &self.device) {
            (Verdict::Starve(why), Some(device)) if !starves => {
                let seconds = device.timeout.as_secs();
                let sentence = format!(
                    "this node could not let go, so its watchdog is not fed any more: this machine \
                     is reset within {seconds} seconds"
                );
                let next = "wait for it to come back; what it could not let go is told here";
                self.because(now, (CODE, Severity::Critical), sentence, why.clone(), next);
            }
            (Verdict::Feed | Verdict::Idle, _) if starves => self.reason = None,
            (Verdict::Starve(_) | Verdict::Feed | Verdict::Idle, _) => {}
        }
    }

    fn because(
        &mut self,
        now: Time,
        (code, severity): (&str, Severity),
        sentence: String,
        fact: String,
        next: &str,
    ) {
        let known = self.reason.as_ref().filter(|reason| reason.code == code);
        let since = known.map_or(now, |reason| reason.since);
        let (code, evidence) = (code.to_owned(), vec![fact]);
        if known.is_none() {
            let (code, sentence, evidence) = (code.clone(), sentence.clone(), evidence.clone());
            self.untold.push(Event { module: None, code, severity, sentence, evidence });
        }
        let next = vec![next.to_owned()];
        self.reason = Some(Reason { code, sentence, severity, since, evidence, next });
    }
}

impl Note {
    fn write(&mut self, watchdog: Option<WatchdogConfig>) {
        let starting = self.starting;
        let noted = watchdog.map(|watchdog| Noted { boot: this_boot(), watchdog, starting });
        if noted == self.noted {
            return;
        }
        let written = match &noted {
            Some(noted) => durable::write(&self.file, noted),
            None => durable::remove(&self.file),
        };
        if let Err(error) = written {
            eprintln!("! {}: {error}", self.file.display());
        }
        self.noted = noted;
    }
}

fn this_boot() -> Option<BootId> {
    clock::boot_id().ok()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
