//! Carries out the checks of a module's application: one thread for all of them, which sleeps until
//! something happens.
//!
//! Every kind has the same skeleton: a look begins, has descriptors to wait for and a limit of
//! time, takes a turn whenever one of them is ready, and ends with a finding. A look that takes
//! longer than its interval is followed by the next one when it ends, so that none pile up. When
//! checks run, and what follows from their results, is decided by `cluster`.

mod exec;
mod process;
mod tally;
mod tcp;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::Input;
use model::config::{CheckConfig, CheckKind, Watched};
use model::{ModuleName, Time};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use self::tally::Tally;
use crate::clock;
use crate::daemon::application::Shared;
use crate::daemon::event::Event;

/// What a look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// All is well.
    Well,
    /// It is not, or not yet; in few words first, then perhaps what was said.
    Failed(Vec<String>),
    /// What was there is dead: nothing is to be waited for.
    Dead(Vec<String>),
    /// Whoever would know does not answer, which is no fault of the application.
    Unknown(Vec<String>),
}

/// How a look goes on.
#[derive(Debug)]
enum Turn {
    /// It waits.
    Waits,
    /// It has found something, and goes on.
    Tells(Finding),
    /// It has ended, perhaps with a finding.
    Ends(Option<Finding>),
}

/// A look under way.
enum Look {
    Process(process::Watch),
    Tcp(tcp::Connecting),
    Exec(exec::Run),
}

/// The checks of a module.
pub(crate) struct Checks {
    orders: Arc<Mutex<Vec<Order>>>,
    wake: Arc<OwnedFd>,
}

/// Which checks are to be carried out.
struct Order {
    serial: u64,
    checks: BTreeSet<ModuleName>,
}

impl Checks {
    /// Starts the thread that carries them out. So far none is; what an earlier daemon left of them
    /// is ended.
    pub(crate) fn new(application: Arc<Shared>, events: &Sender<Event>) -> io::Result<Checks> {
        exec::end_leftovers(&application.config.name)?;
        let orders = Arc::new(Mutex::new(Vec::new()));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let runner = Runner {
            orders: Arc::clone(&orders),
            wake: Arc::clone(&wake),
            events: events.clone(),
            serial: 0,
            slots: BTreeMap::new(),
            dying: Vec::new(),
            application,
        };
        std::thread::Builder::new()
            .name(format!("{}-checks", runner.application.config.name))
            .spawn(move || runner.run())?;
        Ok(Checks { orders, wake })
    }

    /// Has these carried out, and no others.
    pub(crate) fn run(&self, serial: u64, checks: BTreeSet<ModuleName>) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.push(Order { serial, checks });
        drop(orders);
        // A counter that is full wakes the thread as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread's state.
struct Runner {
    orders: Arc<Mutex<Vec<Order>>>,
    wake: Arc<OwnedFd>,
    events: Sender<Event>,
    application: Arc<Shared>,
    serial: u64,
    slots: BTreeMap<ModuleName, Slot>,
    /// Looks that were broken off and are not gone yet.
    dying: Vec<(ModuleName, exec::Run)>,
}

/// A check that is carried out.
struct Slot {
    check: CheckConfig,
    tally: Tally,
    look: Option<Look>,
    /// How the state that the tally has shows itself.
    evidence: Vec<String>,
    /// Whether the log has been told that nobody knows.
    unknown: bool,
    /// When the look under way began, and the next one is due after it.
    began: Time,
    due: Time,
}

impl Runner {
    fn run(mut self) {
        loop {
            self.wait();
            self.take_orders();
            self.dying.retain_mut(|(_, run)| !matches!(run.turn(clock::now()), Turn::Ends(_)));
            let mut told = Vec::new();
            for (name, slot) in &mut self.slots {
                let busy = self.dying.iter().any(|(dying, _)| dying == name);
                told.extend(slot.turn(&self.application, clock::now(), busy));
            }
            for result in told {
                self.tell(result);
            }
        }
    }

    /// Waits until a descriptor is ready, a look is due or over its limit, or an order comes.
    fn wait(&self) {
        let mut until: Option<Time> = None;
        let mut descriptors: Vec<(BorrowedFd<'_>, PollFlags)> =
            vec![(self.wake.as_fd(), PollFlags::IN)];
        let looks = self.slots.values().filter_map(|slot| slot.look.as_ref());
        for look in looks {
            look.descriptors(&mut descriptors);
        }
        for (_, run) in &self.dying {
            run.descriptors(&mut descriptors);
        }
        for at in self.slots.values().filter_map(Slot::wakes_at) {
            until = Some(until.map_or(at, |until| until.min(at)));
        }
        let mut polled: Vec<PollFd<'_>> = descriptors
            .iter()
            .map(|(descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags))
            .collect();
        let pause = until.map(|until| timespec(until.since(clock::now())));
        // An interruption is only one more reason to look.
        let _ = poll(&mut polled, pause.as_ref());
    }

    /// All of them, in order: a check that one of them leaves out forgets what it knows.
    fn take_orders(&mut self) {
        let mut counter = [0; 8];
        // It is empty when nobody has written.
        let _ = rustix::io::read(&self.wake, &mut counter);
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *orders);
        drop(orders);
        for order in taken {
            self.follow(order);
        }
    }

    fn follow(&mut self, Order { serial, checks }: Order) {
        self.serial = serial;
        // What they said last may have crossed the order.
        for slot in self.slots.values().filter(|slot| checks.contains(&slot.check.name)) {
            if let Some(up) = slot.tally.up() {
                self.tell((slot.check.name.clone(), up, slot.evidence.clone()));
            }
        }
        let gone: Vec<ModuleName> =
            self.slots.keys().filter(|name| !checks.contains(name)).cloned().collect();
        for name in gone {
            if let Some(run) = self.slots.remove(&name).and_then(Slot::break_off) {
                self.dying.push((name, run));
            }
        }
        let now = clock::now();
        for check in &self.application.config.checks {
            if checks.contains(&check.name) {
                let slot = || Slot {
                    tally: Tally::new(check.fail_after, now + check.grace),
                    check: check.clone(),
                    look: None,
                    evidence: Vec::new(),
                    unknown: false,
                    began: now,
                    due: now,
                };
                self.slots.entry(check.name.clone()).or_insert_with(slot);
            }
        }
    }

    fn tell(&self, (check, up, evidence): (ModuleName, bool, Vec<String>)) {
        let module = self.application.config.name.clone();
        let input = Input::CheckResult { module, serial: self.serial, check, up, evidence };
        // Without a receiver the daemon ends.
        let _ = self.events.send(Event::Input(input));
    }
}

impl Slot {
    /// Begins what is due, and lets what is under way take a turn. The check's name and state if
    /// that has changed.
    fn turn(
        &mut self,
        application: &Shared,
        now: Time,
        busy: bool,
    ) -> Option<(ModuleName, bool, Vec<String>)> {
        if self.look.is_none() && now >= self.due && !busy {
            self.began = now;
            match Look::begin(&self.check, application, now) {
                Ok(look) => self.look = Some(look),
                Err(error) => {
                    let words = vec![format!("it cannot be carried out: {error}")];
                    self.due = now + self.check.interval.max(self.rest());
                    return self.weigh(now, Finding::Failed(words));
                }
            }
        }
        let finding = match self.look.as_mut()?.turn(application, now) {
            Turn::Waits => return None,
            Turn::Tells(finding) => Some(finding),
            Turn::Ends(finding) => {
                self.look = None;
                self.due = (self.began + self.check.interval).max(now + self.rest());
                finding
            }
        };
        self.weigh(now, finding?)
    }

    /// Time from the end of one look to the next, at the least.
    fn rest(&self) -> Duration {
        match self.check.kind {
            CheckKind::Process(Watched::Service(_)) => process::ASK_PAUSE,
            CheckKind::Process(_) | CheckKind::Tcp(_) | CheckKind::Exec { .. } => Duration::ZERO,
        }
    }

    fn weigh(&mut self, now: Time, finding: Finding) -> Option<(ModuleName, bool, Vec<String>)> {
        let unknown = matches!(finding, Finding::Unknown(_));
        if let Finding::Unknown(words) = &finding
            && !self.unknown
        {
            eprintln!("! check {}: {}", self.check.name, words.join("; "));
        }
        self.unknown = unknown;
        let up = self.tally.note(now, &finding)?;
        self.evidence = match finding {
            Finding::Well => Vec::new(),
            Finding::Failed(words) | Finding::Dead(words) | Finding::Unknown(words) => words,
        };
        Some((self.check.name.clone(), up, self.evidence.clone()))
    }

    fn wakes_at(&self) -> Option<Time> {
        match &self.look {
            None => Some(self.due),
            Some(look) => look.deadline(),
        }
    }

    /// Ends what is under way; what remains of it is to be waited for.
    fn break_off(self) -> Option<exec::Run> {
        let mut run = match self.look? {
            Look::Exec(run) => run,
            Look::Process(watch) => watch.into_question()?,
            Look::Tcp(_) => return None,
        };
        run.kill();
        Some(run)
    }
}

impl Look {
    fn begin(check: &CheckConfig, application: &Shared, now: Time) -> io::Result<Look> {
        let limit = now + check.timeout;
        Ok(match &check.kind {
            CheckKind::Process(watched) => {
                Look::Process(process::Watch::begin(check, watched, application, limit)?)
            }
            CheckKind::Tcp(address) => Look::Tcp(tcp::Connecting::begin(*address, limit)?),
            CheckKind::Exec { run, user } => {
                let module = &application.config.name;
                Look::Exec(exec::Run::begin(module, &check.name, run, user.as_deref(), limit)?)
            }
        })
    }

    fn turn(&mut self, application: &Shared, now: Time) -> Turn {
        match self {
            Look::Process(watch) => watch.turn(application, now),
            Look::Tcp(connecting) => connecting.turn(now),
            Look::Exec(run) => run.turn(now),
        }
    }

    fn descriptors<'a>(&'a self, all: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        match self {
            Look::Process(watch) => watch.descriptors(all),
            Look::Tcp(connecting) => connecting.descriptors(all),
            Look::Exec(run) => run.descriptors(all),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Look::Process(watch) => watch.deadline(),
            Look::Tcp(connecting) => Some(connecting.deadline()),
            Look::Exec(run) => Some(run.deadline()),
        }
    }
}

/// Whether a descriptor is ready now.
fn is_ready(descriptor: &impl AsFd, flags: PollFlags) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(descriptor.as_fd(), flags)];
    poll(&mut polled, Some(&timespec(Duration::ZERO))).is_ok_and(|count| count > 0)
}

fn timespec(span: Duration) -> Timespec {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: i64::from(span.subsec_nanos()) }
}
