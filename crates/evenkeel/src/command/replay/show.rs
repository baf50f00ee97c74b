//! What is shown of a replay: the inputs of which something came, what changed by them, and what
//! the node wanted done.
//!
//! Heartbeats and pings that changed nothing are counted. A line of text or JSON goes out as soon
//! as it is known, for a recording may be long.

use cluster::replay::{Difference, Entry};
use cluster::{Effect, Input, Node};
use model::{ModuleName, Phase, Time};
use serde::Serialize;

use super::changes::{Change, Fields};
use super::{moment, text};
use crate::command::print;
use crate::render::clock_time;

/// Shows steps, in order.
pub(super) struct Show {
    json: bool,
    from_ms: u64,
    module: Option<ModuleName>,
    at: Time,
    wall_ms: u64,
    /// The state at the step shown last, if it is the same node's.
    fields: Option<Fields>,
    /// Inputs that were not shown since.
    quiet: u64,
}

/// A step as JSON.
#[derive(Serialize)]
struct Step<'a> {
    at_ms: u64,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'a Input>,
    changes: &'a [Change],
    effects: &'a [&'a Effect],
}

impl Show {
    pub(super) fn new(json: bool, from_ms: u64, module: Option<ModuleName>) -> Show {
        let (at, wall_ms) = (Time::ZERO, 0);
        Show { json, from_ms, module, at, wall_ms, fields: None, quiet: 0 }
    }

    /// The time of what is shown next.
    pub(super) fn at(&mut self, at: Time, wall_ms: u64) {
        (self.at, self.wall_ms) = (at, wall_ms);
    }

    /// Something about the recording itself.
    pub(super) fn note(&mut self, text: &str) {
        self.fields = None;
        if self.json {
            eprintln!("! {text}");
        } else {
            print(&format!("! {text}"));
        }
    }

    /// Looks at the state before the first step that is shown.
    pub(super) fn before(&mut self, entry: &Entry, node: Option<&Node>) {
        let begins = matches!(entry, Entry::Boot(_) | Entry::State { continues: false, .. });
        if begins {
            self.fields = None;
        }
        if let Some(node) = node
            && self.fields.is_none()
            && self.is_shown()
            && !begins
        {
            self.fields = Some(Fields::of(node, self.at, self.wall_ms));
            let what = "the node as it is at this moment".to_owned();
            self.beginning(what, node, &[]);
        }
    }

    /// An entry that the node has taken, with what it wants done.
    pub(super) fn step(&mut self, program: &str, entry: &Entry, effects: &[Effect], node: &Node) {
        if !self.is_shown() {
            return;
        }
        let effects: Vec<&Effect> = effects.iter().filter(|effect| self.concerns(effect)).collect();
        match entry {
            Entry::Boot(_) => {
                let what = format!("a daemon begins, version {program}");
                self.fields = Some(Fields::of(node, self.at, self.wall_ms));
                self.beginning(what, node, &effects);
            }
            Entry::State { continues, .. } => {
                self.fields = Some(Fields::of(node, self.at, self.wall_ms));
                if !continues {
                    let what = "recorded from here on, after something was lost".to_owned();
                    self.beginning(what, node, &[]);
                }
            }
            Entry::Input(input) => self.input(input, &effects, node),
            Entry::Effects(_) => {}
        }
    }

    fn input(&mut self, input: &Input, effects: &[&Effect], node: &Node) {
        let frequent = matches!(
            input,
            Input::Heartbeat { .. }
                | Input::Unread { .. }
                | Input::DataLink { .. }
                | Input::Reach(_)
                | Input::Tick
        );
        let others = match (&self.module, input.module()) {
            (Some(wanted), Some(module)) => wanted != module,
            (Some(_), None) | (None, _) => false,
        };
        if others || (frequent && effects.is_empty()) {
            self.quiet += 1;
            return;
        }
        let fields = Fields::of(node, self.at, self.wall_ms);
        let before = self.fields.replace(fields.clone()).unwrap_or_default();
        let wanted = |change: &Change| {
            self.module.as_ref().is_none_or(|module| change.module == module.as_str())
        };
        let changes: Vec<Change> = before.changes(&fields).into_iter().filter(wanted).collect();
        let told = text::input(input);
        self.put(&told, Some(input), &changes, effects);
    }

    fn beginning(&mut self, what: String, node: &Node, effects: &[&Effect]) {
        let status = node.status(self.at);
        let wanted = |name: &&ModuleName| self.module.as_ref().is_none_or(|module| module == *name);
        let states =
            status.modules.iter().filter(|(name, _)| wanted(name)).map(|(name, module)| {
                let phase = if module.phase == Phase::Ready { "" } else { "..." };
                format!("{name} {}{phase} in epoch {}", module.role, module.epoch)
            });
        let states: Vec<String> = states.collect();
        let day = moment::day(self.wall_ms);
        let what = format!("{}, {day}: {what}: {}", status.node, states.join(", "));
        self.put(&what, None, &[], effects);
    }

    /// The effects in which a replay and its recording differ, or the fields.
    pub(super) fn difference(&mut self, difference: &Difference) {
        match difference {
            Difference::Effects { recorded, decided } => {
                let list = |effects: &[Effect]| {
                    let each: Vec<String> = effects.iter().map(text::effect).collect();
                    if each.is_empty() { "nothing".to_owned() } else { each.join("; ") }
                };
                self.note(&format!("recorded: {}", list(recorded)));
                self.note(&format!("decided here: {}", list(decided)));
                // Two texts may be alike when what differs is not told by them.
                let apart = recorded.iter().zip(decided).find(|(one, other)| one != other);
                if let Some((one, other)) =
                    apart.filter(|(a, b)| text::effect(a) == text::effect(b))
                {
                    self.note(&format!("recorded: {one:?}"));
                    self.note(&format!("decided here: {other:?}"));
                }
            }
            Difference::State { recorded, decided } => {
                let recorded = Fields::of(recorded, self.at, self.wall_ms);
                let decided = Fields::of(decided, self.at, self.wall_ms);
                for change in recorded.changes(&decided) {
                    self.note(&format!("recorded → here: {}", change.text()));
                }
            }
        }
    }

    fn put(&mut self, told: &str, input: Option<&Input>, changes: &[Change], effects: &[&Effect]) {
        let quiet = std::mem::take(&mut self.quiet);
        if self.json {
            let step = Step { at_ms: self.wall_ms, text: told, input, changes, effects };
            // These types have a JSON form.
            return print(&serde_json::to_string(&step).unwrap_or_default());
        }
        if quiet > 0 {
            print(&format!("              ({quiet} inputs by which nothing changed)"));
        }
        print(&format!("{} {told}", clock_time(self.wall_ms)));
        for change in changes {
            print(&format!("                {}", change.text()));
        }
        for effect in effects {
            print(&format!("              ➜ {}", text::effect(effect)));
        }
    }

    fn is_shown(&self) -> bool {
        self.wall_ms >= self.from_ms
    }

    fn concerns(&self, effect: &Effect) -> bool {
        match (&self.module, effect.module()) {
            (Some(wanted), Some(module)) => wanted == module,
            (Some(_), None) | (None, _) => true,
        }
    }
}
