//! When a check counts as up or down: one bad look among good ones, or one good among bad, is none.
//!
//! Pure arithmetic; what a look is does not matter here.

use model::Time;

use super::Finding;

/// What the findings of a check amount to.
#[derive(Debug)]
pub(super) struct Tally {
    fail_after: u32,
    /// Until then a check that has not been up does not fail.
    grace_until: Time,
    /// Whether it is up, once that is known.
    up: Option<bool>,
    /// How many findings in a row have said the opposite.
    against: u32,
}

impl Tally {
    pub(super) fn new(fail_after: u32, grace_until: Time) -> Tally {
        Tally { fail_after, grace_until, up: None, against: 0 }
    }

    /// Whether it is up, once that is known.
    pub(super) fn up(&self) -> Option<bool> {
        self.up
    }

    /// Counts a finding; the state if that changes it.
    pub(super) fn note(&mut self, now: Time, finding: &Finding) -> Option<bool> {
        let (up, enough) = match finding {
            // What is up for the first time need not prove itself.
            Finding::Well => (true, if self.up.is_none() { 1 } else { self.fail_after }),
            Finding::Failed(_) if self.up.is_none() && now < self.grace_until => return None,
            Finding::Failed(_) => (false, self.fail_after),
            Finding::Dead(_) => (false, 1),
            // What was known is known no less.
            Finding::Unknown(_) => return None,
        };
        if self.up == Some(up) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < enough {
            return None;
        }
        self.against = 0;
        self.up = Some(up);
        self.up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Findings, one a second: `w`ell, `f`ailed, `d`ead, `u`nknown; and after each `+`, `-` or
    /// nothing new.
    fn check(fail_after: u32, grace_s: u64, findings: &str, expected: &str) {
        let second = |count: u64| Time::from_millis(count * 1000);
        let mut tally = Tally::new(fail_after, second(grace_s));
        let told: String = (0..)
            .zip(findings.chars())
            .map(|(count, finding)| {
                let finding = match finding {
                    'w' => Finding::Well,
                    'f' => Finding::Failed(Vec::new()),
                    'u' => Finding::Unknown(Vec::new()),
                    _ => Finding::Dead(Vec::new()),
                };
                match tally.note(second(count), &finding) {
                    Some(true) => '+',
                    Some(false) => '-',
                    None => ' ',
                }
            })
            .collect();
        assert_eq!(told, expected, "{findings}");
    }

    #[test]
    fn it_takes_several_in_a_row_to_change_what_is_known() {
        check(2, 0, "wfwfwffff", "+     -  ");
        check(2, 0, "wffwfwwfw", "+ -   +  ");
        check(1, 0, "wfwf", "+-+-");
        check(3, 0, "fffwww", "  -  +");
    }

    #[test]
    fn a_death_counts_at_once() {
        check(3, 0, "wd", "+-");
        check(3, 100, "d", "-");
        check(3, 0, "wffd", "+  -");
    }

    #[test]
    fn what_could_not_be_looked_at_is_no_finding() {
        check(1, 0, "wuuuf", "+   -");
        check(2, 0, "wfufuw", "+  -  ");
        check(1, 0, "uuw", "  +");
    }

    #[test]
    fn what_is_only_starting_does_not_fail() {
        check(2, 3, "fffff", "    -");
        check(2, 9, "fwff", " + -");
        check(2, 9, "w", "+");
    }
}
