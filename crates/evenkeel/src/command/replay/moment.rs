//! Points on people's clocks, in UTC, as they are written and shown. No time zone is known here.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::render::clock_time;

const DAY_MS: u64 = 86_400_000;

/// A point in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn ms(self) -> u64 {
        self.0
    }
}

/// Reads `[DATE T]HH:MM[:SS[.mmm]][Z]`. Without a date it is the last such time before now.
pub(super) fn parse(text: &str) -> Result<Moment, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    parse_at(text, now).ok_or_else(|| {
        "write it as 14:02, 14:02:11 or 2026-11-29T14:02:11, in UTC as `evenkeel events` shows it"
            .to_owned()
    })
}

fn parse_at(text: &str, now: u64) -> Option<Moment> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (Some(date), time),
        None => (None, text),
    };
    let of_day = parse_time(time)?;
    if let Some(date) = date {
        return Some(Moment(parse_date(date)? * DAY_MS + of_day));
    }
    let today = now / DAY_MS * DAY_MS + of_day;
    Some(Moment(if today <= now { today } else { today.saturating_sub(DAY_MS) }))
}

fn parse_time(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':');
    let hours = number(parts.next()?, 24)?;
    let minutes = number(parts.next()?, 60)?;
    let seconds = parts.next().map_or(Some(0), |text| number(text, 60))?;
    if parts.next().is_some() || fraction.len() > 3 {
        return None;
    }
    let milliseconds = number(&format!("{fraction:0<3}"), 1000)?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds)
}

/// Days since 1970.
fn parse_date(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let year = number(parts.next()?, 10_000)?;
    let month = number(parts.next()?, 13).filter(|month| *month > 0)?;
    let day = number(parts.next()?, 32).filter(|day| *day > 0)?;
    if parts.next().is_some() || year < 1970 {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    (date_of(days) == (year, month, day)).then_some(days)
}

fn number(text: &str, limit: u64) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number < limit)
}

/// A moment with its date.
pub(super) fn full(ms: u64) -> String {
    format!("{} {}", day(ms), clock_time(ms))
}

/// The date of a moment.
pub(super) fn day(ms: u64) -> String {
    let (year, month, day) = date_of(ms / DAY_MS);
    format!("{year:04}-{month:02}-{day:02}")
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(is_leap(year)),
        _ => 31,
    }
}

/// Days from 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    years + (1..month).map(|month| days_in(year, month)).sum::<u64>()
}

fn date_of(days: u64) -> (u64, u64, u64) {
    let (mut year, mut month, mut left) = (1970, 1, days);
    while left >= 365 + u64::from(is_leap(year)) {
        left -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29 at noon.
    const NOON: u64 = 1_795_953_600_000;

    #[test]
    fn moments_are_read_as_they_are_shown() {
        assert_eq!(full(NOON), "2026-11-29 12:00:00.000Z");
        assert_eq!(full(951_782_400_000), "2000-02-29 00:00:00.000Z");
        for at in [0, NOON, NOON + 1, 951_782_399_999] {
            assert_eq!(parse_at(&full(at), NOON), Some(Moment(at)));
        }
        assert_eq!(parse_at("12:00", NOON), Some(Moment(NOON)));
        assert_eq!(parse_at("11:59:58.5", NOON), Some(Moment(NOON - 1500)));
        assert_eq!(parse_at("12:00:01", NOON), Some(Moment(NOON + 1000 - DAY_MS)), "yesterday");
        assert_eq!(parse_at("2026-11-29T12:00:00Z", 0), Some(Moment(NOON)));
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in
            ["", "12", "24:00", "12:60", "12:00:00:00", "+1:00", "2026-02-29T12:00", "12:00:0.1234"]
        {
            assert_eq!(parse_at(text, NOON), None, "{text}");
        }
    }
}
