//! How buckets are shared out: by weight, never more than one away from the exact share, and moved
//! as little as possible.
//!
//! Buckets without an owner who may serve are given away first, and nothing else is moved then, so
//! that a failure touches nobody but the clients of the node that failed. What that leaves uneven
//! is evened out by a step of its own. Who may serve is decided elsewhere.

use std::collections::BTreeMap;

use super::table::{Line, Seat};

/// Shares the buckets out to those in `weights`, in one step of those above. A weight of 0 gets
/// nothing as long as anybody has another. Returns whether anything was moved.
pub(super) fn balance(lines: &mut [Line], weights: &BTreeMap<Seat, u32>) -> bool {
    let Some(mut shares) = Shares::new(lines, weights) else {
        return orphan_all(lines);
    };
    let mut given = false;
    for line in lines.iter_mut() {
        if shares.serves(line.owner) {
            continue;
        }
        let to = shares.poorest();
        line.give(to);
        shares.add(to, 1);
        given = true;
    }
    given || shares.even_out(lines)
}

/// Nobody may serve.
fn orphan_all(lines: &mut [Line]) -> bool {
    let mut changed = false;
    for line in lines.iter_mut().filter(|line| line.owner.is_some()) {
        line.give(None);
        changed = true;
    }
    changed
}

/// How far each node is from its exact share, times the sum of the weights.
struct Shares {
    whole: i64,
    surplus: BTreeMap<Seat, i64>,
}

impl Shares {
    fn new(lines: &[Line], weights: &BTreeMap<Seat, u32>) -> Option<Shares> {
        let none = weights.values().all(|weight| *weight == 0);
        let weight = |weight: u32| if none { 1 } else { i64::from(weight) };
        let chosen = weights.iter().filter(|(_, given)| none || **given > 0);
        let weights: Vec<(Seat, i64)> =
            chosen.map(|(seat, given)| (*seat, weight(*given))).collect();
        let whole: i64 = weights.iter().map(|(_, weight)| weight).sum();
        if whole == 0 {
            return None;
        }
        let buckets = i64::try_from(lines.len()).unwrap_or(0);
        let surplus = weights.into_iter().map(|(seat, weight)| (seat, -buckets * weight));
        let mut shares = Shares { whole, surplus: surplus.collect() };
        for line in lines {
            shares.add(line.owner, 1);
        }
        Some(shares)
    }

    fn serves(&self, owner: Option<Seat>) -> bool {
        owner.is_some_and(|owner| self.surplus.contains_key(&owner))
    }

    fn add(&mut self, owner: Option<Seat>, count: i64) {
        if let Some(surplus) = owner.and_then(|owner| self.surplus.get_mut(&owner)) {
            *surplus += count * self.whole;
        }
    }

    fn poorest(&self) -> Option<Seat> {
        self.surplus.iter().min_by_key(|(_, surplus)| **surplus).map(|(seat, _)| *seat)
    }

    fn richest(&self) -> Option<Seat> {
        self.surplus.iter().max_by_key(|(_, surplus)| **surplus).map(|(seat, _)| *seat)
    }

    /// Whether anybody is a whole bucket or more away from the exact share.
    fn is_uneven(&self) -> bool {
        self.surplus.values().any(|surplus| surplus.abs() >= self.whole)
    }

    /// Each move makes the sum of the squares of the surpluses smaller, so this ends.
    fn even_out(&mut self, lines: &mut [Line]) -> bool {
        let mut moved = false;
        while self.is_uneven() {
            let (Some(from), Some(to)) = (self.richest(), self.poorest()) else { break };
            let Some(line) = pick(lines, from, to) else { break };
            line.give(Some(to));
            self.add(Some(from), -1);
            self.add(Some(to), 1);
            moved = true;
        }
        moved
    }
}

/// The bucket to move: one that the receiver had before, as it may know clients of it still.
fn pick(lines: &mut [Line], from: Seat, to: Seat) -> Option<&mut Line> {
    let owned = |line: &Line| line.owner == Some(from);
    let had = lines.iter().position(|line| owned(line) && line.chain().any(|seat| seat == to));
    let at = had.or_else(|| lines.iter().position(owned))?;
    lines.get_mut(at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::table::BUCKETS;
    use super::*;

    fn empty() -> Vec<Line> {
        vec![Line::default(); BUCKETS]
    }

    fn count(lines: &[Line], seat: Seat) -> i64 {
        lines.iter().filter(|line| line.owner == Some(seat)).count().try_into().unwrap()
    }

    /// Balances until nothing moves; how many buckets moved.
    fn settle(lines: &mut [Line], weights: &BTreeMap<Seat, u32>) -> usize {
        let before = lines.to_vec();
        for round in 0.. {
            if !balance(lines, weights) {
                break;
            }
            assert!(round < 3, "it settles in two steps");
        }
        before.iter().zip(lines.iter()).filter(|(was, is)| was.owner != is.owner).count()
    }

    fn assert_even(lines: &[Line], weights: &BTreeMap<Seat, u32>) {
        let whole: i64 = weights.values().map(|weight| i64::from(*weight)).sum();
        for (seat, weight) in weights {
            let off = count(lines, *seat) * whole - BUCKETS as i64 * i64::from(*weight);
            assert!(off.abs() < whole.max(1), "{seat}: {} of {weights:?}", count(lines, *seat));
        }
        assert!(lines.iter().all(|line| line.owner.is_some_and(|seat| weights[&seat] > 0)));
    }

    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u32) -> u32 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) as u32 % sides
        }
    }

    #[test]
    fn any_farm_is_even_whoever_comes_and_goes_and_moves_no_more_than_it_must() {
        for seed in 0..400 {
            let mut dice = Dice(seed);
            let mut lines = empty();
            let mut weights = BTreeMap::from([(0, 1 + dice.roll(1000))]);
            settle(&mut lines, &weights);
            for _ in 0..20 {
                let before = lines.clone();
                let old = weights.clone();
                let seat = dice.roll(32) as Seat;
                let gone = weights.len() > 1 && weights.remove(&seat).is_some();
                if !gone {
                    weights.insert(seat, 1 + dice.roll(1000));
                }
                let moved = settle(&mut lines, &weights);
                assert_even(&lines, &weights);
                // What no rule could avoid.
                let all = BTreeSet::from_iter(old.keys().chain(weights.keys()));
                let left = |seat: &&Seat| (count(&before, **seat) - count(&lines, **seat)).max(0);
                let needed: i64 = all.iter().map(left).sum();
                assert!(moved as i64 <= needed, "seed {seed}: {moved} moved of {needed}");
            }
        }
    }

    #[test]
    fn with_equal_weights_a_failure_moves_the_failed_nodes_buckets_and_no_other() {
        for nodes in 2..=32u8 {
            let mut weights: BTreeMap<Seat, u32> = (0..nodes).map(|seat| (seat, 100)).collect();
            let mut lines = empty();
            settle(&mut lines, &weights);
            let before = lines.clone();
            let lost = nodes / 2;
            weights.remove(&lost);
            settle(&mut lines, &weights);
            assert_even(&lines, &weights);
            for (was, is) in before.iter().zip(&lines) {
                assert!(was.owner == is.owner || was.owner == Some(lost), "{nodes} nodes");
            }
            assert_eq!(
                lines.iter().filter(|line| line.former[0] == Some(lost)).count() as i64,
                count(&before, lost)
            );
        }
    }

    #[test]
    fn weight_0_serves_when_nobody_else_can() {
        let mut lines = empty();
        settle(&mut lines, &BTreeMap::from([(0, 100), (1, 0)]));
        assert_eq!((count(&lines, 0), count(&lines, 1)), (256, 0));
        settle(&mut lines, &BTreeMap::from([(1, 0), (2, 0)]));
        assert_eq!((count(&lines, 1), count(&lines, 2)), (128, 128));
        settle(&mut lines, &BTreeMap::new());
        assert!(lines.iter().all(|line| line.owner.is_none()));
        settle(&mut lines, &BTreeMap::from([(0, 100), (1, 0)]));
        assert_eq!(count(&lines, 0), 256);
    }

    #[test]
    fn who_comes_back_gets_what_it_had() {
        let both = BTreeMap::from([(0, 100), (1, 100)]);
        let mut lines = empty();
        settle(&mut lines, &both);
        let before: Vec<_> = lines.iter().map(|line| line.owner).collect();
        settle(&mut lines, &BTreeMap::from([(0, 100)]));
        settle(&mut lines, &both);
        let after: Vec<_> = lines.iter().map(|line| line.owner).collect();
        assert_eq!(before, after);
    }
}
