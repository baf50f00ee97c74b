//! What the demo measured, as a table, as a JSON object and as a verdict.
//!
//! The verdict rests on loss, identity and convergence. Milliseconds are shown, not judged.

use std::time::Duration;

use lab::Lab;
use lab::compare::Comparison;
use serde_json::{Value, json};

use super::application::App;
use super::cluster::NODES;
use super::screen::{Mark, Screen, count, seconds, size};

/// Differences that are shown.
const DIFFERENCES_MAX: usize = 10;

/// What was measured; `None` where the demo did not come so far.
#[derive(Debug)]
pub(super) struct Figures {
    app: App,
    /// Why the demo ended before its end.
    pub(super) failure: Option<String>,
    pub(super) first_sync: Option<Duration>,
    /// Bytes copied by it; 0 when unknown.
    pub(super) first_sync_bytes: f64,
    /// From the kill to the survivor's decision.
    pub(super) detection: Option<Duration>,
    pub(super) outage_failover: Option<Duration>,
    pub(super) resync: Option<Duration>,
    /// Bytes copied by it; 0 when unknown.
    pub(super) resync_bytes: f64,
    /// Longest time without an acknowledgement from the boot of the returning node on.
    pub(super) pause_resync: Option<Duration>,
    pub(super) outage_switchover: Option<Duration>,
    pub(super) acknowledged: Option<usize>,
    /// Acknowledged transactions that were missing when all were counted.
    pub(super) lost: Option<Vec<u64>>,
    pub(super) comparison: Option<Comparison>,
    /// Whether the pair was protected after each step.
    pub(super) converged: bool,
}

impl Figures {
    pub(super) fn new(app: App) -> Figures {
        Figures {
            app,
            failure: None,
            first_sync: None,
            first_sync_bytes: 0.0,
            detection: None,
            outage_failover: None,
            resync: None,
            resync_bytes: 0.0,
            pause_resync: None,
            outage_switchover: None,
            acknowledged: None,
            lost: None,
            comparison: None,
            converged: false,
        }
    }

    /// Whether all that was promised held.
    pub(super) fn is_good(&self) -> bool {
        self.failure.is_none()
            && self.converged
            && self.acknowledged.is_some_and(|acknowledged| acknowledged > 0)
            && self.lost.as_ref().is_some_and(Vec::is_empty)
            && self.comparison.as_ref().is_some_and(Comparison::is_identical)
    }

    /// The object that ends the output of `--json`.
    pub(super) fn json(&self) -> Value {
        let millis = |duration: &Option<Duration>| duration.map(|d| d.as_millis());
        let seconds = |duration: &Option<Duration>| {
            duration.map(|d| (d.as_secs_f64() * 1000.0).round() / 1000.0)
        };
        json!({
            "schema": 1,
            "app": self.app.name(),
            "passed": self.is_good(),
            "failure": self.failure,
            "acknowledged": self.acknowledged,
            "lost": self.lost.as_ref().map(Vec::len),
            "identical": self.comparison.as_ref().map(Comparison::is_identical),
            "converged": self.converged,
            "detection_ms": millis(&self.detection),
            "outage_failover_ms": millis(&self.outage_failover),
            "outage_switchover_ms": millis(&self.outage_switchover),
            "first_sync_seconds": seconds(&self.first_sync),
            "pause_resync_ms": millis(&self.pause_resync),
            "resync_seconds": seconds(&self.resync),
        })
    }

    /// The table at the end.
    pub(super) fn table(&self, screen: &mut Screen) {
        let time = |duration: Option<Duration>| duration.map_or_else(|| "?".to_owned(), seconds);
        let row = |what: &str, result: &str, note: &str| {
            format!("   {what:<34}{result:>12}   {note}").trim_end().to_owned()
        };
        screen.plain("\nWhat the client saw");
        let note = format!("{} killed; noticed after {}", NODES[0], time(self.detection));
        screen.plain(&row("no answer during the failover", &time(self.outage_failover), &note));
        let note = format!("{} back to {}, in order", NODES[1], NODES[0]);
        screen.plain(&row("no answer during the switchover", &time(self.outage_switchover), &note));
        let note = "transactions went on beside it";
        screen.plain(&row("longest pause during the resync", &time(self.pause_resync), note));
        screen.plain("\nWhat became of the data");
        let copied = |bytes: f64, to: &str| match bytes {
            0.0 => format!("to {to}"),
            bytes => format!("{} to {to}", size(bytes)),
        };
        let note = copied(self.first_sync_bytes, NODES[1]);
        screen.plain(&row("first sync", &time(self.first_sync), &note));
        let note = copied(self.resync_bytes, NODES[0]);
        screen.plain(&row("resync after the failover", &time(self.resync), &note));
        let acknowledged = self.acknowledged.map_or_else(|| "?".to_owned(), count);
        screen.plain(&row("transactions acknowledged", &acknowledged, ""));
        let lost = self.lost.as_ref().map_or_else(|| "?".to_owned(), |lost| count(lost.len()));
        screen.plain(&row("transactions lost", &lost, ""));
        let (identical, note) = match &self.comparison {
            Some(found) => (
                if found.is_identical() { "yes" } else { "NO" },
                format!("{} files, {}", count(number(found.entries)), size(found.bytes as f64)),
            ),
            None => ("?", String::new()),
        };
        screen.plain(&row("replicas identical", identical, &note));
        self.verdict(screen);
    }

    fn verdict(&self, screen: &mut Screen) {
        screen.plain("");
        if let Some(lost) = self.lost.as_ref().filter(|lost| !lost.is_empty()) {
            let shown: Vec<String> = lost.iter().take(20).map(u64::to_string).collect();
            screen.say(Mark::Bad, &format!("lost: {}", shown.join(", ")));
        }
        let differences = self.comparison.iter().flat_map(|found| &found.differences);
        for difference in differences.take(DIFFERENCES_MAX) {
            screen.say(Mark::Bad, &format!("{difference} ({} and {})", NODES[0], NODES[1]));
        }
        if self.is_good() {
            screen.say(Mark::Good, "nothing was lost, and both nodes hold the same");
        } else {
            screen.say(Mark::Bad, "not everything held that Evenkeel promises");
        }
    }
}

/// What can be done with a cluster that was kept.
pub(super) fn what_to_try(lab: &Lab, module: &str) -> String {
    let name = lab.name();
    let [one, other] = NODES;
    let own = own_command();
    let on = |node: &str| format!("{own} lab exec {name} {node} -- /run/lab/evenkeel");
    let root = "--root /mnt/state";
    format!(
        "\nThe cluster goes on. Try:\n\
         \x20 {} {root} status\n\
         \x20 {} {root} events\n\
         \x20 {} {root} switchover {module}\n\
         \x20 {own} lab kill {name} {one}        then, on {other}: status, why {module}\n\
         \x20 {own} lab start {name} {one}       boots it; then start its daemon:\n\
         \x20 {} {root} daemon &\n\
         \x20 {own} lab cut {name} {one} {other}   exactly one goes on\n\
         Files: {}\n\
         Remove it: {own} lab down {name}",
        on(one),
        on(other),
        on(other),
        on(one),
        lab.dir().display()
    )
}

/// How the user called this binary.
fn own_command() -> String {
    let called = std::env::args().next().filter(|word| word.contains('/'));
    called.unwrap_or_else(|| "evenkeel".to_owned())
}

fn number(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            acknowledged: Some(5),
            lost: Some(Vec::new()),
            comparison: Some(Comparison::default()),
            converged: true,
            detection: Some(Duration::from_millis(2012)),
            resync: Some(Duration::from_millis(1500)),
            ..Figures::new(App::Ledger)
        }
    }

    #[test]
    fn the_verdict_needs_all_of_it() {
        assert!(good().is_good());
        assert!(!Figures { lost: Some(vec![3]), ..good() }.is_good());
        assert!(!Figures { lost: None, ..good() }.is_good());
        assert!(!Figures { comparison: None, ..good() }.is_good());
        assert!(!Figures { converged: false, ..good() }.is_good());
        assert!(!Figures { acknowledged: Some(0), ..good() }.is_good());
        assert!(!Figures { failure: Some("late".into()), ..good() }.is_good());
    }

    #[test]
    fn the_object_has_what_scripts_read() {
        let object = good().json();
        assert_eq!(object["acknowledged"], 5);
        assert_eq!(object["lost"], 0);
        assert_eq!(object["identical"], true);
        assert_eq!(object["detection_ms"], 2012);
        assert_eq!(object["resync_seconds"], 1.5);
        assert_eq!(object["outage_failover_ms"], Value::Null);
        assert!(object.get("outage_switchover_ms").is_some());
    }
}
