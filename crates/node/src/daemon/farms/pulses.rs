//! The pulses of this node's farms: sent at their pace, and at once when there is something new;
//! heard from every network, each once.
//!
//! They are sent by a thread of its own, which runs before all ordinary ones. It goes on while the
//! main loop waits for a disk, for the kernel serves on; but not for long, as what it says gets
//! old.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::Input;
use cluster::farm::{Part, Pulse, Seat};
use model::config::ModuleConfig;
use model::{BootId, ModuleName, NodeName, Time};
use wire::pulse::put_pulse;

use super::places::Places;
use crate::clock;
use crate::urgent;

/// The main loop may stand still for so long before its farms fall silent.
pub(crate) const STALE: Duration = Duration::from_secs(2);
/// How often a node says that it is out before it falls silent.
const FAREWELLS: u32 = 10;
/// How long the thread waits when there is nothing to be sent.
const IDLE: Duration = Duration::from_secs(1);

/// The farms of this node.
#[derive(Default)]
pub(crate) struct Pulses {
    farms: BTreeMap<ModuleName, Farm>,
    sequence: AtomicU64,
    wake: Mutex<Option<Sender<()>>>,
}

struct Farm {
    own: NodeName,
    nodes: Vec<NodeName>,
    pace: Duration,
    places: Arc<Places>,
    said: Mutex<Said>,
    heard: Mutex<BTreeMap<Seat, (BootId, u64, u64)>>,
}

#[derive(Default)]
struct Said {
    pulse: Option<Pulse>,
    due: Time,
    /// How often it is still to be sent; for ever where that is none.
    left: Option<u32>,
}

/// A pulse that is due: its module, to whom, and its bytes.
pub(crate) type Due = (ModuleName, Vec<NodeName>, Vec<u8>);

impl Pulses {
    /// Adds a farm, before the threads begin.
    pub(crate) fn add(&mut self, own: &NodeName, config: &ModuleConfig, places: &Arc<Places>) {
        let Some(farm) = &config.farm else { return };
        let farm = Farm {
            own: own.clone(),
            nodes: config.nodes.clone(),
            pace: farm.pulse,
            places: Arc::clone(places),
            said: Mutex::default(),
            heard: Mutex::default(),
        };
        self.farms.insert(config.name.clone(), farm);
    }

    /// Whom to wake when there is something new.
    pub(crate) fn set_wake(&self, wake: Sender<()>) {
        *lock(&self.wake) = Some(wake);
    }

    /// Says this from now on, and at once.
    pub(crate) fn say(&self, module: &ModuleName, pulse: Pulse) {
        let Some(farm) = self.farms.get(module) else { return };
        let left = (pulse.part == Part::Out).then_some(FAREWELLS);
        *lock(&farm.said) = Said { pulse: Some(pulse), due: Time::ZERO, left };
        if let Some(wake) = &*lock(&self.wake) {
            // The thread lives as long as the process.
            let _ = wake.send(());
        }
    }

    /// Says at once what it says anyway: somebody is there who has not heard it.
    pub(crate) fn hurry(&self) {
        for farm in self.farms.values() {
            lock(&farm.said).due = Time::ZERO;
        }
        if let Some(wake) = &*lock(&self.wake) {
            let _ = wake.send(());
        }
    }

    /// Whether some farm of this node takes part, so that others listen for it.
    pub(crate) fn are_awaited(&self) -> bool {
        let takes_part = |pulse: &Pulse| pulse.part != Part::Out;
        self.farms.values().any(|farm| lock(&farm.said).pulse.as_ref().is_some_and(takes_part))
    }

    /// From now on each farm says that this daemon ends; what is to be sent for that. One that is
    /// out has nothing in the kernel that could go on.
    pub(crate) fn end(&self) -> Vec<Due> {
        let said = |(module, farm): (&ModuleName, &Farm)| {
            let mut said = lock(&farm.said);
            let pulse = said.pulse.as_mut().filter(|pulse| pulse.part != Part::Out)?;
            pulse.away = true;
            let bytes = self.bytes(module, farm, pulse.clone())?;
            Some((module.clone(), farm.others(), bytes))
        };
        self.farms.iter().filter_map(said).collect()
    }

    /// What a pulse from `peer` tells the core; nothing when it was heard before.
    pub(crate) fn hear(
        &self,
        received: Time,
        peer: &NodeName,
        module: ModuleName,
        mut pulse: Box<Pulse>,
    ) -> Option<Input> {
        let farm = self.farms.get(&module)?;
        let seat = farm.nodes.iter().position(|node| node == peer)?;
        // A node that counts in another list is told apart by its own roster.
        pulse.from = Seat::try_from(seat).ok()?;
        let number = (pulse.boot, pulse.incarnation, pulse.sequence);
        let mut heard = lock(&farm.heard);
        let before = heard.get(&pulse.from);
        if before.is_some_and(|before| before.0 == number.0 && *before >= number) {
            return None;
        }
        heard.insert(pulse.from, number);
        drop(heard);
        farm.places.heard(pulse.from, &std::mem::take(&mut pulse.place));
        Some(Input::Pulse { module, received, pulse, more: false })
    }

    /// What is due now, and when the next is.
    fn take_due(&self, now: Time) -> (Vec<Due>, Option<Time>) {
        let mut due = Vec::new();
        let mut next: Option<Time> = None;
        for (module, farm) in &self.farms {
            let mut said = lock(&farm.said);
            if said.left == Some(0) {
                continue;
            }
            if said.due <= now
                && let Some(pulse) = said.pulse.clone()
            {
                if let Some(bytes) = self.bytes(module, farm, pulse) {
                    due.push((module.clone(), farm.others(), bytes));
                }
                said.due = now + farm.pace;
                said.left = said.left.map(|left| left - 1);
            }
            if said.pulse.is_some() {
                next = Some(next.map_or(said.due, |next| next.min(said.due)));
            }
        }
        (due, next)
    }

    fn bytes(&self, module: &ModuleName, farm: &Farm, pulse: Pulse) -> Option<Vec<u8>> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let pulse = Pulse { sequence, place: farm.places.own(), ..pulse };
        put_pulse(module, &pulse).ok()
    }
}

impl Farm {
    fn others(&self) -> Vec<NodeName> {
        self.nodes.iter().filter(|node| **node != self.own).cloned().collect()
    }
}

/// Sends what is due, until the process ends. `is_stale` says whether the main loop stands still.
pub(crate) fn pulse(
    pulses: &Pulses,
    woken: &Receiver<()>,
    is_stale: impl Fn(Time) -> bool,
    send: impl Fn(&NodeName, &[u8]),
) {
    urgent::hurry();
    let mut next = None;
    loop {
        let pause = next.map_or(IDLE, |next: Time| next.since(clock::now()));
        match woken.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while woken.try_recv().is_ok() {}
        let now = clock::now();
        let (due, at) = pulses.take_due(now);
        next = at;
        if is_stale(now) {
            continue;
        }
        for (_, others, bytes) in due {
            others.iter().for_each(|node| send(node, &bytes));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "pulses_tests.rs"]
pub(crate) mod tests;
