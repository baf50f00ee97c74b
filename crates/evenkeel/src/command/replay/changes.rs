//! What differs between two states of a node, field by field, as people may want to read it.
//!
//! A state is taken in the form in which it is recorded, so that no field can be forgotten; what
//! changes all the time, or says the same as another field, is left out.

use std::collections::BTreeMap;

use cluster::Node;
use model::Time;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::render::clock_time;

/// Fields that say nothing to people.
const LEFT_OUT: &[&str] = &[
    "now",
    "wake",
    "peer.received",
    "peer.echoed",
    "peer.link_received",
    "peer.link_echoed",
    "persisted",
    "rng.high",
    "rng.low",
];
/// The field with what all kinds of modules keep.
const BASE: &str = "base";
/// What is left out with everything below it.
const LEFT_OUT_BELOW: &[&str] = &["last_good.", "last_front.", "peer.report.config."];

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// The module.
    pub(super) module: String,
    /// The field.
    pub(super) field: String,
    /// What it was, if it was there.
    pub(super) from: Option<String>,
    /// What it is, if it is there.
    pub(super) to: Option<String>,
}

impl Change {
    pub(super) fn text(&self) -> String {
        let Change { module, field, from, to } = self;
        match (from, to) {
            (Some(from), Some(to)) => format!("{module} {field}: {from} → {to}"),
            (None, Some(to)) => format!("{module} {field}: {to}"),
            (Some(_), None) | (None, None) => format!("{module} {field}: gone"),
        }
    }
}

/// A node's state, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(BTreeMap<(String, String), Value>);

/// A value as it is recorded, which is what is compared, and as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Value {
    raw: String,
    shown: String,
}

impl Fields {
    /// The fields of `node`, of which the clocks show `wall_ms` at `at`.
    pub(super) fn of(node: &Node, at: Time, wall_ms: u64) -> Fields {
        let clock = Clock { at, wall_ms };
        let mut fields = Fields::default();
        let text = serde_json::to_string(node).unwrap_or_default();
        let modules = entries(&text).and_then(|mut node| node.remove("modules"));
        for (module, state) in modules.and_then(|raw| entries(raw.get())).unwrap_or_default() {
            // A module is its kind and what that keeps.
            let kind = entries(state.get()).unwrap_or_default();
            for state in kind.into_values() {
                fields.walk(&module, "", state, &clock);
            }
        }
        fields
    }

    /// What is different in `later`.
    pub(super) fn changes(&self, later: &Fields) -> Vec<Change> {
        let mut changes: BTreeMap<(String, String), Change> = BTreeMap::new();
        for (key, to) in &later.0 {
            let from = self.0.get(key);
            if from.is_none_or(|from| from.raw != to.raw) {
                let (module, field) = key.clone();
                let (from, to) = (from.map(|from| from.shown.clone()), Some(to.shown.clone()));
                changes.insert(key.clone(), Change { module, field, from, to });
            }
        }
        for (key, from) in self.0.iter().filter(|(key, _)| !later.0.contains_key(*key)) {
            let key = later.missing(key);
            let (module, field) = key.clone();
            let from = Some(from.shown.clone());
            changes.entry(key).or_insert(Change { module, field, from, to: None });
        }
        changes.into_values().collect()
    }

    /// The topmost part of a field's path of which nothing is here.
    fn missing(&self, (module, path): &(String, String)) -> (String, String) {
        let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
        let is_here = |part: &str| {
            let below = (module.clone(), format!("{part}."));
            let next = self.0.range(below.clone()..).next();
            self.0.contains_key(&(module.clone(), part.to_owned()))
                || next.is_some_and(|((of, field), _)| of == module && field.starts_with(&below.1))
        };
        let part = ends.map(|end| &path[..end]).find(|part| !is_here(part)).unwrap_or(path);
        (module.clone(), part.to_owned())
    }

    fn walk(&mut self, module: &str, path: &str, raw: &RawValue, clock: &Clock) {
        let text = raw.get();
        let below = |key: &str| {
            if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
        };
        if let Some(entries) = entries(text) {
            // What else belongs to a reason changes with each look, or follows from its code.
            if path.starts_with("reasons.")
                && let Some(sentence) = entries.get("sentence")
            {
                return self.walk(module, path, sentence, clock);
            }
            for (key, raw) in entries {
                // What all kinds of modules keep is not told apart from what only this one does.
                let below =
                    if path.is_empty() && key == BASE { String::new() } else { below(&key) };
                self.walk(module, &below, raw, clock);
            }
        } else if let Some(values) = values(text) {
            for (index, raw) in values.into_iter().enumerate() {
                self.walk(module, &below(&index.to_string()), raw, clock);
            }
        } else if let Some(value) = clock.value(path, text).filter(|_| is_told(path)) {
            let path = match path {
                "shown.0" => "role",
                "shown.1" => "phase",
                path => path,
            };
            let value = Value { raw: text.to_owned(), shown: value };
            self.0.insert((module.to_owned(), path.to_owned()), value);
        }
    }
}

fn is_told(path: &str) -> bool {
    !LEFT_OUT.contains(&path) && !LEFT_OUT_BELOW.iter().any(|left| path.starts_with(left))
}

fn entries(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

fn values(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// A moment on the node's clock and on people's.
struct Clock {
    at: Time,
    wall_ms: u64,
}

impl Clock {
    /// A value as people read it; none for what is not there.
    fn value(&self, path: &str, text: &str) -> Option<String> {
        if text == "null" {
            return None;
        }
        if let Ok(text) = serde_json::from_str::<String>(text) {
            return Some(text);
        }
        let name = path.rsplit('.').next().unwrap_or(path);
        let is_time = ["since", "until", "_at", "listening"].iter().any(|end| name.ends_with(end));
        match text.parse::<u128>() {
            Ok(0) if is_time => Some("never".to_owned()),
            Ok(nanos) if is_time => u64::try_from(nanos).ok().map(|nanos| self.time(nanos)),
            // Ids are random: their first digits tell them apart.
            Ok(id) if id > u128::from(u64::MAX) => Some(format!("{:08x}", id >> 96)),
            Ok(_) | Err(_) => Some(text.to_owned()),
        }
    }

    fn time(&self, nanos: u64) -> String {
        let then = Time::from_nanos(nanos);
        let ahead = u64::try_from(then.since(self.at).as_millis()).unwrap_or(0);
        let ago = u64::try_from(self.at.since(then).as_millis()).unwrap_or(0);
        clock_time((self.wall_ms + ahead).saturating_sub(ago))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        let clock = Clock { at: Time::from_millis(10_000), wall_ms: 50_531_007 };
        let mut fields = Fields::default();
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        fields.walk("shop", "", raw, &clock);
        fields
    }

    fn check(before: &str, after: &str, expected: &[&str]) {
        let changes = fields(before).changes(&fields(after));
        let texts: Vec<String> = changes.iter().map(Change::text).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn changes_are_told_field_by_field() {
        check(r#"{"a":1,"b":{"c":"x"}}"#, r#"{"a":1,"b":{"c":"x"}}"#, &[]);
        check(r#"{"a":1}"#, r#"{"a":2,"b":[true]}"#, &["shop a: 1 → 2", "shop b.0: true"]);
        check(r#"{"a":null,"b":1}"#, r#"{"a":1,"b":null}"#, &["shop a: 1", "shop b: gone"]);
        check(r#"{"job":{"id":1,"more":{"x":1}},"jobs":2}"#, r#"{"jobs":2}"#, &["shop job: gone"]);
    }

    #[test]
    fn values_are_told_as_people_read_them() {
        let id = 0x0123_4567_u128 << 96;
        check("{}", &format!("{{\"id\":{id}}}"), &["shop id: 01234567"]);
        check(
            r#"{"since":9000000000,"retry_at":0}"#,
            r#"{"since":9500000000,"retry_at":11000000000}"#,
            &["shop retry_at: never → 14:02:12.007Z", "shop since: 14:02:10.007Z → 14:02:10.507Z"],
        );
        check(
            r#"{"shown":["WAIT","ready"]}"#,
            r#"{"shown":["PRIM","ready"]}"#,
            &["shop role: WAIT → PRIM"],
        );
        check("{}", r#"{"now":7,"rng":{"low":3},"last_good":{"root":9}}"#, &[]);
        check(
            "{}",
            r#"{"reasons":{"alone":{"code":"alone","sentence":"It is.","since":4}}}"#,
            &["shop reasons.alone: It is."],
        );
    }
}
