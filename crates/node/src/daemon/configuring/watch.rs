//! A thread looks now and then: whether files were edited, what became of what this node has agreed
//! to, and whether a peer has a newer configuration.
//!
//! What follows from what it finds is `cluster::configuration`'s.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::configuration::{self, CatchUp, Outcome, Proposal, Testimony, Version};
use model::NodeName;
use model::config::{self, Files, Stand};
use wire::control::{Configuring as Ask, Exit, Newest, Verb};

use crate::configuration::{accept, draft};
use crate::daemon::configuring::answer;
use crate::daemon::configuring::{Context, DECIDING, WRITING, lock};
use crate::daemon::event::Event;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// So many looks a proposal may be pending before the others are asked about it, and so many pass
/// after an attempt to catch up that failed.
const PATIENCE: u32 = 4;

/// The newest of each peer, as heartbeats tell it.
pub(crate) type Stands = Arc<Mutex<BTreeMap<NodeName, Stand>>>;

struct Watch<'a> {
    context: &'a Context,
    signature: Option<Vec<(u64, u64, i64, i64)>>,
    /// What is pending, and for how many looks.
    pending: Option<(String, u32)>,
    /// So many looks pass before a peer is asked for its configuration again.
    rest: u32,
}

/// Looks until the daemon starts anew, or ends.
pub(super) fn watch(context: &Context, peers: &Stands) {
    let mut watch = Watch { context, signature: None, pending: None, rest: 0 };
    loop {
        watch.look_at_files();
        let stands = lock(peers).clone();
        lock(&context.configuring.seen).peers.clone_from(&stands);
        let taken = watch.resolve_pending() || watch.catch_up(&stands);
        if taken && context.events.send(Event::Again).is_err() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

impl Watch<'_> {
    /// Whether the files were edited.
    fn look_at_files(&mut self) {
        let configuring = &self.context.configuring;
        let layout = &self.context.membership.layout;
        let signature = draft::signature(layout);
        if self.signature.as_ref() == Some(&signature) {
            return;
        }
        let draft = draft::read(layout);
        let changes = match (&configuring.version, draft) {
            (Some(version), draft) => {
                Some(draft.map(|draft| config::changes(&version.files, &draft)))
            }
            // At this daemon's start they could not be read either.
            (None, Err(why)) => Some(Err(why)),
            (None, Ok(_)) => None,
        };
        lock(&configuring.seen).draft = changes;
        self.signature = Some(signature);
    }

    /// Finds out what became of what this node has agreed to; whether it was decided.
    fn resolve_pending(&mut self) -> bool {
        let context = self.context;
        let pending = context.store().pending();
        let pending =
            pending.ok().flatten().filter(|pending| pending.version.from != *context.own());
        let Some(pending) = pending else {
            self.pending = None;
            lock(&context.configuring.seen).pending = None;
            return false;
        };
        let looks = self.pending.take().filter(|(id, _)| *id == pending.id).map_or(0, |(_, n)| n);
        self.pending = Some((pending.id.clone(), looks.saturating_add(1)));
        if looks < PATIENCE {
            return false;
        }
        let (number, from) = (pending.version.number, pending.version.from.clone());
        lock(&context.configuring.seen).pending = Some((number, from));
        match configuration::outcome(&pending, &self.testimonies(&pending)) {
            Outcome::Unknown => false,
            Outcome::Abandon => {
                answer::abandon(context, &pending.id);
                false
            }
            Outcome::Commit => {
                let carried_out = answer::carry_out(context, &pending.id, &pending.version.stand());
                carried_out.unwrap_or_else(|error| {
                    eprintln!("! configuration {number}: {error}");
                    false
                })
            }
        }
    }

    fn testimonies(&self, pending: &Proposal) -> BTreeMap<NodeName, Testimony> {
        let membership = &self.context.membership;
        let mut heard = BTreeMap::new();
        for node in membership.cluster.nodes.iter().filter(|node| node.name != membership.own) {
            let ask = Ask::Testify { id: pending.id.clone(), stand: pending.version.stand() };
            let reply =
                membership.peer(&node.name).request(Verb::Configuration { ask }, &channel().0);
            if reply.outcome == Exit::Done
                && let Ok(testimony) = serde_json::from_value(reply.data)
            {
                heard.insert(node.name.clone(), testimony);
            }
        }
        heard
    }

    /// Takes what peers have newer; whether there was something.
    fn catch_up(&mut self, stands: &BTreeMap<NodeName, Stand>) -> bool {
        let own = self.context.configuring.stand();
        if stands.values().all(|stand| configuration::catch_up(&own, stand) == CatchUp::Nothing) {
            let mut seen = lock(&self.context.configuring.seen);
            (seen.behind, seen.conflict) = (None, None);
            return false;
        }
        // Whoever has all nodes change something brings this one along.
        let Ok(_one) = DECIDING.try_lock() else { return false };
        self.rest = self.rest.saturating_sub(1);
        if self.rest > 0 || self.pending.is_some() {
            return false;
        }
        let context = self.context;
        let newest = context.store().newest().ok().flatten();
        let own = newest.as_ref().map(Version::stand).unwrap_or_default();
        let (mut behind, mut conflict, mut taken) = (None, None, false);
        for (node, stand) in stands {
            match configuration::catch_up(&own, stand) {
                CatchUp::Nothing => {}
                CatchUp::Conflict => conflict = Some(node.clone()),
                CatchUp::Ask if taken => {}
                CatchUp::Ask => match self.take_from(node, newest.as_ref()) {
                    Ok(Some(CatchUp::Conflict)) => conflict = Some(node.clone()),
                    Ok(Some(CatchUp::Ask)) => taken = true,
                    Ok(Some(CatchUp::Nothing) | None) => {}
                    Err(why) => behind = Some((stand.number, why)),
                },
            }
        }
        if behind.is_some() || conflict.is_some() {
            self.rest = PATIENCE;
        }
        let mut seen = lock(&context.configuring.seen);
        (seen.behind, seen.conflict) = (behind.filter(|_| !taken), conflict);
        taken
    }

    /// Asks one peer for its configuration; what became of it, unless the peer does not answer.
    fn take_from(
        &self,
        node: &NodeName,
        newest: Option<&Version>,
    ) -> Result<Option<CatchUp>, String> {
        let (context, own) = (self.context, newest.map(Version::stand).unwrap_or_default());
        let ask = Ask::Fetch { own };
        let reply =
            context.membership.peer(node).request(Verb::Configuration { ask }, &channel().0);
        let Ok(given) = serde_json::from_value::<Newest>(reply.data) else { return Ok(None) };
        let stand = given.version.stand();
        let verdict = configuration::take_over(&own, &stand, given.knows_own);
        if verdict != CatchUp::Ask {
            return Ok(Some(verdict));
        }
        let layout = &context.membership.layout;
        let none = Files::default();
        let before = newest.map_or(&none, |newest| &newest.files);
        accept::usable(layout, context.own(), before, &given.version.files)?;
        let _one = lock(&WRITING);
        let changes = config::changes(before, &given.version.files);
        let reserved = context.reserve(config::to_stop(&changes), false);
        reserved.map_err(|running| running.sentence(context.own()))?;
        let taken = context.take(before, &given.version, false);
        taken.map_err(|error| {
            context.configuring.release();
            error.to_string()
        })?;
        Ok(Some(CatchUp::Ask))
    }
}
