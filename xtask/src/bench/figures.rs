//! Figures of many bursts: medians, tenth percentiles, and ratios of what took turns in one round.

use std::collections::BTreeMap;

use super::site::{Contender, Ground};

/// What was measured in one burst, in microseconds for a call; or in calls a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Burst {
    pub(super) middle: f64,
    pub(super) tenth: f64,
}

/// A middle over all bursts and a tenth percentile of the better side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) p10: f64,
}

/// Series of bursts by name, such as `write-4k.ext4.native`.
#[derive(Default)]
pub(super) struct Figures(BTreeMap<String, Vec<Burst>>);

/// The name of a series.
pub(super) fn series(workload: &str, ground: Ground, contender: Contender) -> String {
    format!("{workload}.{}.{}", ground.name(), contender.name())
}

/// Whether the figures of a series are calls a second, so that more is better.
pub(super) fn is_rate(series: &str) -> bool {
    series.starts_with("pgbench")
}

/// What the figures of a series count.
pub(super) fn unit(series: &str) -> &'static str {
    if is_rate(series) { "tps" } else { "us" }
}

impl Figures {
    pub(super) fn add(&mut self, series: String, burst: Burst) {
        self.0.entry(series).or_default().push(burst);
    }

    /// Adds what a burst printed: lines `SERIES p50 p10 count` of nanoseconds.
    pub(super) fn add_lines(&mut self, text: &str, name: impl Fn(&str) -> String) {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(series), Some(middle), Some(tenth)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if let (Ok(middle), Ok(tenth)) = (middle.parse::<f64>(), tenth.parse::<f64>()) {
                let burst = Burst { middle: middle / 1e3, tenth: tenth / 1e3 };
                self.add(name(series), burst);
            }
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn bursts(&self, series: &str) -> &[Burst] {
        self.0.get(series).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn summary(&self, series: &str) -> Option<Summary> {
        let bursts = self.bursts(series);
        let share = if is_rate(series) { 90 } else { 10 };
        Some(Summary {
            median: percentile(bursts.iter().map(|burst| burst.middle), 50)?,
            p10: percentile(bursts.iter().map(|burst| burst.tenth), share)?,
        })
    }

    /// How many times as fast as a limit, made from several series, another one is: burst by burst
    /// of the same round, and for the tenth percentiles.
    pub(super) fn ratio(
        &self,
        of: &str,
        parts: &[&str],
        limit: impl Fn(&[f64]) -> f64,
    ) -> Option<Summary> {
        let speed =
            |limit: f64, value: f64| if is_rate(of) { value / limit } else { limit / value };
        let all: Option<Vec<&Vec<Burst>>> = parts.iter().map(|part| self.0.get(*part)).collect();
        let all = all?;
        let ratios = self.bursts(of).iter().enumerate().filter_map(|(round, burst)| {
            let values: Option<Vec<f64>> =
                all.iter().map(|part| part.get(round).map(|burst| burst.middle)).collect();
            Some(speed(limit(&values?), burst.middle))
        });
        let median = percentile(ratios, 50)?;
        let tenths: Option<Vec<f64>> =
            parts.iter().map(|part| self.summary(part).map(|summary| summary.p10)).collect();
        Some(Summary { median, p10: speed(limit(&tenths?), self.summary(of)?.p10) })
    }
}

fn percentile(values: impl Iterator<Item = f64>, share: usize) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get(last * share / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_bursts_of_one_round() {
        let mut figures = Figures::default();
        // The machine is twice as slow in the second round; the ratio does not show it.
        figures.add_lines("w 2000 1000 9\n", |name| format!("{name}.base"));
        figures.add_lines("w 4000 2000 9\nnonsense\n", |name| format!("{name}.base"));
        figures.add_lines("w 4000 2000 9\n", |name| format!("{name}.mine"));
        figures.add_lines("w 8000 4000 9\n", |name| format!("{name}.mine"));
        let ratio = figures.ratio("w.mine", &["w.base"], |parts| parts[0]).unwrap();
        assert_eq!(ratio, Summary { median: 0.5, p10: 0.5 });
        let limit = figures.ratio("w.mine", &["w.base", "w.base"], |parts| parts[0] + parts[1]);
        assert_eq!(limit.unwrap().median, 1.0);
        assert_eq!(figures.ratio("w.mine", &["w.none"], |parts| parts[0]), None);
    }

    #[test]
    fn of_rates_more_is_better() {
        let mut figures = Figures::default();
        for value in [100.0, 300.0, 200.0] {
            let burst = Burst { middle: value, tenth: value };
            figures.add("pgbench.base".to_owned(), burst);
            figures.add("pgbench.mine".to_owned(), Burst { middle: value / 2.0, tenth: value });
        }
        assert_eq!(figures.summary("pgbench.base").unwrap().median, 200.0);
        let ratio = figures.ratio("pgbench.mine", &["pgbench.base"], |parts| parts[0]).unwrap();
        assert_eq!(ratio.median, 0.5);
    }
}
