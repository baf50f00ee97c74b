//! What replication should reach, as ratios to what was measured beside it, and whether it does.

use serde_json::{Value, json};

use super::figures::{Figures, Summary, series};
use super::site::{Contender, Ground};

/// What our own software may add to a call, in microseconds.
const OWN_US: f64 = 8.0;

/// One target: a series, the series that make its limit, and the least ratio.
struct Target {
    what: String,
    of: String,
    parts: Vec<String>,
    limit: fn(&[f64]) -> f64,
    least: f64,
}

/// A target with what was reached of it.
pub(super) struct Reached {
    what: String,
    ratio: Summary,
    least: f64,
}

impl Reached {
    /// Whether it is met, by the median.
    pub(super) fn is_met(&self) -> bool {
        self.ratio.median >= self.least
    }

    /// A row of the table.
    pub(super) fn row(&self) -> String {
        let Summary { median, p10 } = self.ratio;
        let met = if self.is_met() { "met" } else { "missed" };
        format!("{:<66} {median:>7.2} {p10:>7.2} {:>7.2}  {met}", self.what, self.least)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "what": self.what, "median": self.ratio.median, "p10": self.ratio.p10,
            "least": self.least, "met": self.is_met(),
        })
    }
}

/// The heading of the table.
pub(super) fn heading() -> String {
    format!("{:<66} {:>7} {:>7} {:>7}", "speed relative to its limit", "median", "p10", "target")
}

/// All targets for which something was measured.
pub(super) fn reached(figures: &Figures) -> Vec<Reached> {
    let reach = |target: Target| {
        let parts: Vec<&str> = target.parts.iter().map(String::as_str).collect();
        let ratio = figures.ratio(&target.of, &parts, target.limit)?;
        Some(Reached { what: target.what, ratio, least: target.least })
    };
    targets().into_iter().filter_map(reach).collect()
}

fn targets() -> Vec<Target> {
    use Contender::{Fsync, Fuse, Gluster, Native, Write};
    let mut targets = Vec::new();
    for ground in [Ground::Disk, Ground::Memory] {
        let mut add = |what: &str, workload: &str, of, parts: Vec<String>, limit, least| {
            let mode = if of == Fsync { "ack=fsync" } else { "ack=write" };
            let what = format!("{workload} on {}, {mode}: {what}", ground.name());
            targets.push(Target { what, of: series(workload, ground, of), parts, limit, least });
        };
        let of = |workload: &str, contender| series(workload, ground, contender);
        let link = |name: &str| format!("{name}.link");
        for mode in [Write, Fsync] {
            let same: fn(&[f64]) -> f64 = |parts| parts[0];
            let mut plain = |workload: &str, what: &str, base, least| {
                add(what, workload, mode, vec![of(workload, base)], same, least);
            };
            plain("read-cached-4k", "native", Native, 0.95);
            plain("read-cold-1m", "FUSE alone", Fuse, 0.95);
            plain("read-cold-4k", "FUSE alone", Fuse, 0.95);
            match mode {
                Fsync => plain("untar", "FUSE alone", Fuse, 0.9),
                _ => plain("untar", "GlusterFS", Gluster, 5.0),
            }
            plain("write-4k", "GlusterFS", Gluster, 5.0);
            plain("pgbench-c4", "native", Native, 0.9);
            plain("pgbench-c4", "GlusterFS", Gluster, 3.0);
            plain("pgbench-c1", "FUSE alone", Fuse, 0.85);
            let parts = vec![of("write-1m", Fuse), link("stream-1m")];
            add(
                "slower of FUSE and TCP",
                "write-1m",
                mode,
                parts,
                |parts| parts[0].max(parts[1]),
                0.9,
            );
            // In memory, where a sync costs nothing, there is no limit to compare with.
            if ground == Ground::Disk {
                let parts = vec![of("write-sync-4k", Native), link("round-trip-4k")];
                let limit = |parts: &[f64]| 1.15 * parts[0] + parts[1];
                add("1.15 x native + round trip", "write-sync-4k", mode, parts, limit, 1.0);
            }
        }
        let parts = vec![of("write-4k", Fuse), link("round-trip-4k")];
        let limit = |parts: &[f64]| parts[0] + parts[1] + OWN_US;
        add("FUSE + round trip + 8 us", "write-4k", Write, parts, limit, 1.0);
        let limit = |parts: &[f64]| parts[0] + OWN_US;
        add("FUSE + 8 us", "write-4k", Fsync, vec![of("write-4k", Fuse)], limit, 1.0);
    }
    targets
}
