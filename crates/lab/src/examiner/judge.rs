//! Whether what is found after a fault is what a writer's log demands. An operation that was under
//! way may have been done, not done, or, where it changes content, done in part.

use super::log::Record;
use super::model::Model;
use super::op::Op;
use super::synced;
use super::tree::{Kind, Tree, differences};

/// What a fault may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: whatever has returned is there.
    Everything,
    /// The end: what is there was there after some operation, no earlier than the last sync.
    Prefix,
    /// What no returned sync covers.
    Synced,
}

/// What a judgement was based on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// Operations that had returned.
    pub returned: u64,
    /// Operations at the end that are not there; only [`Rule::Prefix`] allows any.
    pub missing: u64,
    /// Names found.
    pub names: u64,
}

/// Compares what is found with what a log demands.
///
/// # Errors
/// What is wrong, each as a line that begins with the path concerned.
pub fn judge(records: &[Record], found: &Tree, rule: Rule) -> Result<Judged, Vec<String>> {
    let returned = records.iter().filter(|record| record.succeeded()).count();
    let open = records.get(returned);
    if records.iter().take(returned).any(|record| !record.succeeded()) {
        return Err(vec!["the log: an operation follows one that failed".to_owned()]);
    }
    let mut judged = Judged { returned: returned as u64, missing: 0, names: found.len() as u64 };
    let ops: Vec<&Op> = records.iter().take(returned).map(|record| &record.op).collect();
    match rule {
        Rule::Everything => {
            let before = replay(&ops)?;
            between(&before, open.map(|record| &record.op), found)?;
        }
        Rule::Prefix => judged.missing = prefix(&ops, open.map(|record| &record.op), found)?,
        Rule::Synced => synced::judge(&ops, open.map(|record| &record.op), found)?,
    }
    Ok(judged)
}

fn replay(ops: &[&Op]) -> Result<Model, Vec<String>> {
    let mut model = Model::new();
    for op in ops {
        model.apply(op).map_err(|_| misfit(op))?;
    }
    Ok(model)
}

/// The model and the writer's file system do not agree on what may be done.
pub(super) fn misfit(op: &Op) -> Vec<String> {
    vec![format!("the log: by the model, {op:?} could not succeed")]
}

/// Looks for the operation that `found` is the state after; how many are missing.
fn prefix(ops: &[&Op], open: Option<&Op>, found: &Tree) -> Result<u64, Vec<String>> {
    let mut model = Model::new();
    // The operations up to the last sync, and the state after each from there on.
    let mut synced = 0;
    let mut states = vec![model.clone()];
    for (number, op) in ops.iter().enumerate() {
        let effect = model.apply(op).map_err(|_| misfit(op))?;
        if effect.synced.is_some() {
            synced = number + 1;
            states.clear();
        }
        states.push(model.clone());
    }
    let mut newest = None;
    for (offset, state) in states.iter().enumerate().rev() {
        let at = synced + offset;
        match between(state, ops.get(at).copied().or(open), found) {
            Ok(()) => return Ok((ops.len() - at) as u64),
            Err(findings) => drop(newest.get_or_insert(findings)),
        }
    }
    let mut findings = newest.unwrap_or_default();
    findings.insert(0, format!("no state from operation {synced} on is the one found; the last:"));
    Err(findings)
}

/// Whether `found` is the state before an operation, after it, or in the midst of it.
fn between(before: &Model, op: Option<&Op>, found: &Tree) -> Result<(), Vec<String>> {
    let old = before.tree();
    let findings = differences(&old, found);
    let Some(op) = op.filter(|_| !findings.is_empty()) else {
        return if findings.is_empty() { Ok(()) } else { Err(findings) };
    };
    let mut after = before.clone();
    after.apply(op).map_err(|_| misfit(op))?;
    let new = after.tree();
    let others = differences(&new, found);
    if others.is_empty() || in_part(op, &old, &new, found) {
        return Ok(());
    }
    Err(if others.len() < findings.len() { others } else { findings })
}

/// Whether only the content that the operation changes differs, and each of its bytes is the old
/// or the new one.
fn in_part(op: &Op, old: &Tree, new: &Tree, found: &Tree) -> bool {
    let Some(target) = op.content_of().and_then(|path| old.get(path)) else { return false };
    let mut expected = new.clone();
    for (path, entry) in &mut expected {
        let Some(there) = found.get(path).filter(|_| entry.first == target.first) else {
            continue;
        };
        let before = old.get(path).map(|entry| &entry.kind);
        let (Some(Kind::File(old)), Kind::File(new), Kind::File(found)) =
            (before, &entry.kind, &there.kind)
        else {
            return false;
        };
        if !mixes(old, new, found) {
            return false;
        }
        entry.kind = there.kind.clone();
        entry.mtime = there.mtime;
    }
    differences(&expected, found).is_empty()
}

fn mixes(old: &[u8], new: &[u8], found: &[u8]) -> bool {
    let (least, most) = (old.len().min(new.len()), old.len().max(new.len()));
    let byte = |of: &[u8], at: usize| of.get(at).copied().unwrap_or(0);
    (least..=most).contains(&found.len())
        && (0..found.len()).all(|at| found[at] == byte(old, at) || found[at] == byte(new, at))
}
