//! What the farm's demo measured, as a table, as a JSON object and as a verdict.
//!
//! The verdict rests on what broke, what was lost and on convergence. Milliseconds are shown, not
//! judged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::site::App;
use crate::command::demo::screen::{Mark, Screen, seconds};

/// What was measured; `None` where the demo did not come so far.
#[derive(Debug)]
pub(super) struct Figures {
    app: App,
    /// Why the demo ended before its end.
    pub(super) failure: Option<String>,
    /// Answers of each node to new clients, while all served.
    pub(super) shares: BTreeMap<String, usize>,
    /// From the first new client without an answer to the last one.
    pub(super) outage_kill: Option<Duration>,
    pub(super) lost_kill: Option<usize>,
    /// Kept connections that the killed node had.
    pub(super) kept_by_killed: Option<usize>,
    pub(super) broken_kill: Option<usize>,
    /// Those of them that were another node's.
    pub(super) broken_others: Option<usize>,
    pub(super) broken_drain: Option<usize>,
    pub(super) lost_drain: Option<usize>,
    pub(super) broken_join: Option<usize>,
    pub(super) lost_join: Option<usize>,
    /// Whether after each step exactly the right nodes served.
    pub(super) converged: bool,
}

impl Figures {
    pub(super) fn new(app: App) -> Figures {
        Figures {
            app,
            failure: None,
            shares: BTreeMap::new(),
            outage_kill: None,
            lost_kill: None,
            kept_by_killed: None,
            broken_kill: None,
            broken_others: None,
            broken_drain: None,
            lost_drain: None,
            broken_join: None,
            lost_join: None,
            converged: false,
        }
    }

    /// Whether all that was promised held.
    pub(super) fn is_good(&self) -> bool {
        let none = [
            self.broken_others,
            self.broken_drain,
            self.lost_drain,
            self.broken_join,
            self.lost_join,
        ];
        self.failure.is_none()
            && self.converged
            && self.broken_kill.is_some()
            && self.broken_kill == self.kept_by_killed
            && none.iter().all(|count| *count == Some(0))
    }

    /// The object that ends the output of `--json`.
    pub(super) fn json(&self) -> Value {
        json!({
            "schema": 1,
            "app": self.app.name(),
            "passed": self.is_good(),
            "failure": self.failure,
            "converged": self.converged,
            "shares": self.percent(),
            "outage_kill_ms": self.outage_kill.map(|outage| outage.as_millis()),
            "lost_kill": self.lost_kill,
            "kept_by_killed": self.kept_by_killed,
            "broken_kill": self.broken_kill,
            "broken_others": self.broken_others,
            "broken_drain": self.broken_drain,
            "lost_drain": self.lost_drain,
            "broken_join": self.broken_join,
            "lost_join": self.lost_join,
        })
    }

    /// The shares in percent, as new clients saw them.
    fn percent(&self) -> BTreeMap<&str, f64> {
        let whole = self.shares.values().sum::<usize>().max(1) as f64;
        let part = |count: &usize| (*count as f64 * 1000.0 / whole).round() / 10.0;
        self.shares.iter().map(|(node, count)| (node.as_str(), part(count))).collect()
    }

    /// The table at the end.
    pub(super) fn table(&self, screen: &mut Screen) {
        let number = |count: Option<usize>| count.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let outage = self.outage_kill.map_or_else(|| "?".to_owned(), seconds);
        screen.plain("\nWhat the clients saw");
        screen.plain("                          broken    lost    no answer");
        let mut row = |what: &str, broken: Option<usize>, lost: Option<usize>, time: &str| {
            let (broken, lost) = (number(broken), number(lost));
            screen.plain(&format!("   {what:<21}{broken:>8}{lost:>8}    {time:>9}"));
        };
        row("a node was killed", self.broken_kill, self.lost_kill, &outage);
        row("a node was drained", self.broken_drain, self.lost_drain, "-");
        row("a node joined, twice", self.broken_join, self.lost_join, "-");
        screen.plain("   broken: kept connections; lost: new clients without an answer");
        screen.plain("");
        if self.is_good() {
            let kept = number(self.kept_by_killed);
            let text = format!("nothing broke but the {kept} connections of the killed node");
            screen.say(Mark::Good, &text);
        } else {
            screen.say(Mark::Bad, "not everything held that Evenkeel promises");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            shares: [("node1".to_owned(), 1), ("node2".to_owned(), 2)].into(),
            outage_kill: Some(Duration::from_millis(210)),
            lost_kill: Some(7),
            kept_by_killed: Some(20),
            broken_kill: Some(20),
            broken_others: Some(0),
            broken_drain: Some(0),
            lost_drain: Some(0),
            broken_join: Some(0),
            lost_join: Some(0),
            converged: true,
            ..Figures::new(App::Web)
        }
    }

    #[test]
    fn the_verdict_needs_all_of_it() {
        assert!(good().is_good());
        assert!(!Figures { broken_others: Some(1), ..good() }.is_good());
        assert!(!Figures { broken_kill: Some(19), ..good() }.is_good());
        assert!(!Figures { broken_kill: None, kept_by_killed: None, ..good() }.is_good());
        assert!(!Figures { broken_drain: Some(1), ..good() }.is_good());
        assert!(!Figures { lost_drain: None, ..good() }.is_good());
        assert!(!Figures { broken_join: Some(2), ..good() }.is_good());
        assert!(!Figures { lost_join: Some(1), ..good() }.is_good());
        assert!(!Figures { converged: false, ..good() }.is_good());
        assert!(!Figures { failure: Some("late".into()), ..good() }.is_good());
    }

    #[test]
    fn the_object_has_what_scripts_read() {
        let object = good().json();
        assert_eq!(object["outage_kill_ms"], 210);
        assert_eq!(object["broken_kill"], 20);
        assert_eq!(object["broken_drain"], 0);
        assert_eq!(object["broken_join"], 0);
        assert_eq!(object["shares"]["node2"], 66.7);
        assert_eq!(object["passed"], true);
    }
}
