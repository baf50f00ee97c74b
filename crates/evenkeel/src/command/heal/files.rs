//! Both copies as lists, page by page, and what was found between them.
//!
//! As many objects are in memory as fit on a page of each side, and as many differences as are to
//! be shown. A page comes from another machine perhaps: one that does not go on, or is longer than
//! a page may be, ends the comparison.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use cluster::found::Found;
use model::{ModuleName, NodeName};
use serde_json::{Value, json};
use wire::control::{Exit, Reply, Verb};
use wire::listing::{PAGE_OBJECTS_MAX, Page, PageAsked, Place};

use super::differ::{Differ, Difference, Seen, What};
use crate::command::Context;

/// How long before it took up its epoch a node may have changed what the other one never got: a
/// primary applies what it then waits for.
const WAITED: Duration = Duration::from_secs(3);
/// Pause between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// What of the differences is to be shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) skip: usize,
    pub(super) limit: usize,
}

/// A side of the comparison.
struct Side<'a> {
    context: &'a Context,
    module: ModuleName,
    node: NodeName,
    trees: u16,
    tree: u16,
    /// The first epoch that the other side does not know.
    own_epoch: Option<String>,
    /// How much earlier than that counts as since then.
    margin: Duration,
    ready: VecDeque<Seen>,
    last: Option<Place>,
    /// There is nothing behind what is ready.
    ended: bool,
}

impl Side<'_> {
    fn fill(&mut self) -> Result<(), Box<Reply>> {
        while self.ready.is_empty() && !self.ended {
            let after = self.last.as_ref().filter(|last| last.tree == self.tree);
            let asked = PageAsked {
                module: self.module.clone(),
                node: Some(self.node.clone()),
                tree: self.tree,
                after: after.map(Place::path),
            };
            let reply = self.context.ask(Verb::Page { page: asked });
            if reply.outcome != Exit::Done {
                return Err(Box::new(reply));
            }
            let page: Page =
                serde_json::from_value(reply.data).map_err(|error| self.bad(&error))?;
            let short = page.objects.is_empty() && page.more;
            if page.objects.len() > PAGE_OBJECTS_MAX || short {
                return Err(self.bad(&"it is longer or shorter than it may be"));
            }
            self.take(page)?;
        }
        Ok(())
    }

    fn take(&mut self, page: Page) -> Result<(), Box<Reply>> {
        let taken_up = self.own_epoch.as_ref().and_then(|epoch| page.epochs.get(epoch));
        let nanoseconds = |at: Duration| i128::try_from(at.as_nanos()).unwrap_or(i128::MAX);
        let from = taken_up.map(|at| nanoseconds(at.saturating_sub(self.margin)));
        let since = taken_up.map(|at| nanoseconds(*at));
        for object in page.objects {
            let place = Place::of(self.tree, &object.path).map_err(|error| self.bad(&error))?;
            if self.last.as_ref().is_some_and(|last| *last >= place) {
                return Err(self.bad(&"it does not go on where the one before ended"));
            }
            let at = i128::from(object.changed);
            // In between, the other side may have got it or not.
            let before = from.is_some_and(|from| at <= from);
            let changed = (before || since.is_some_and(|since| at > since)).then_some(!before);
            self.last = Some(place.clone());
            self.ready.push_back(Seen { place, object, changed });
        }
        if !page.more {
            self.tree += 1;
            self.ended = self.tree >= self.trees;
        }
        Ok(())
    }

    fn bad(&self, why: &dyn std::fmt::Display) -> Box<Reply> {
        let what = format!("a list of what {} holds is not understood: {why}", self.node);
        Box::new(Reply::new(Exit::Failed, what))
    }
}

/// What differs between both sides.
pub(super) struct Outcome {
    differ: Differ,
    counts: BTreeMap<What, u64>,
    total: u64,
    listed: Vec<Difference>,
    shown: Shown,
}

/// Compares both copies.
///
/// # Errors
/// What is to be told to the user instead.
pub(super) fn compare(
    context: &Context,
    sides: &[Found; 2],
    own_epochs: [Option<String>; 2],
    shown: Shown,
) -> Result<Outcome, Box<Reply>> {
    let config = &sides[0].module.config;
    let [one, two] = own_epochs;
    let side = |found: &Found, own_epoch| Side {
        context,
        module: config.name.clone(),
        node: found.node.clone(),
        trees: u16::try_from(config.replicate.len()).unwrap_or(u16::MAX),
        tree: 0,
        own_epoch,
        margin: config.failover.timeout + WAITED,
        ready: VecDeque::new(),
        last: None,
        ended: config.replicate.is_empty(),
    };
    let mut both = [side(&sides[0], one), side(&sides[1], two)];
    let (differ, counts, listed) = (Differ::default(), BTreeMap::new(), Vec::new());
    let mut outcome = Outcome { differ, counts, total: 0, listed, shown };
    let mut told = Instant::now();
    loop {
        for side in &mut both {
            side.fill()?;
        }
        let heads = both.each_ref().map(|side| side.ready.front());
        if heads.iter().all(Option::is_none) {
            return Ok(outcome);
        }
        let (taken, found) = outcome.differ.next(heads);
        for (side, _) in both.iter_mut().zip(taken).filter(|(_, taken)| *taken) {
            side.ready.pop_front();
        }
        if let Some(found) = found {
            outcome.add(found);
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let (compared, total) = (outcome.differ.compared, outcome.total);
            eprintln!("↻ {compared} objects compared, {total} differ");
        }
    }
}

impl Outcome {
    fn add(&mut self, found: Difference) {
        *self.counts.entry(found.what).or_default() += 1;
        let Shown { skip, limit } = self.shown;
        let at = usize::try_from(self.total).unwrap_or(usize::MAX);
        self.total += 1;
        if at >= skip && self.listed.len() < limit {
            self.listed.push(found);
        }
    }

    /// As lines for people.
    pub(super) fn lines(&self, sides: &[Found; 2]) -> Vec<String> {
        let nodes = sides.each_ref().map(|side| side.node.as_str());
        let mut lines = vec![format!(
            "{} objects were compared by size, time, owner and mode; {} differ:",
            self.differ.compared, self.total
        )];
        for (what, count) in &self.counts {
            lines.push(format!("  {:<40}{count}", what.told(nodes)));
        }
        for (kept, other) in [(0, 1), (1, 0)] {
            let loss = self.differ.losses[other];
            lines.push(format!(
                "If {} is kept, at most {} files of {}, {} bytes, go to quarantine.",
                nodes[kept], loss.files, nodes[other], loss.bytes
            ));
        }
        if !self.listed.is_empty() {
            lines.push(String::new());
        }
        for found in &self.listed {
            lines.push(format!("  {:<40}{}", found.what.told(nodes), path(sides, found)));
        }
        let next = self.shown.skip.saturating_add(self.listed.len());
        let left = self.total.saturating_sub(next as u64);
        if left > 0 {
            let limit = self.shown.limit;
            lines.push(format!("  {left} more: --files {limit} --skip {next}"));
        }
        lines
    }

    /// As data.
    pub(super) fn data(&self, sides: &[Found; 2]) -> Value {
        let nodes = sides.each_ref().map(|side| side.node.as_str());
        let counts: BTreeMap<String, u64> =
            self.counts.iter().map(|(what, count)| (what.told(nodes), *count)).collect();
        let listed: Vec<Value> = self
            .listed
            .iter()
            .map(|found| json!({ "path": path(sides, found), "what": found.what.told(nodes) }))
            .collect();
        let quarantine: BTreeMap<&str, Value> = [(0, 1), (1, 0)]
            .map(|(kept, other)| (nodes[kept], json!(self.differ.losses[other])))
            .into();
        json!({
            "compared": self.differ.compared,
            "differ": self.total,
            "counts": counts,
            "skipped": self.shown.skip,
            "listed": listed,
            "to_quarantine_if_kept": quarantine,
        })
    }
}

/// A path from the root on, with what is not text spelt out.
fn path(sides: &[Found; 2], found: &Difference) -> String {
    let root = sides[0].module.config.replicate.get(usize::from(found.place.tree));
    let root = root.map(|root| root.display().to_string()).unwrap_or_default();
    let below = found.place.path();
    if below.is_empty() { root } else { format!("{root}/{below}") }
}
