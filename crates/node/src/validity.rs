//! From when until when a certificate counts: all that is read here out of its bytes.
//!
//! ```text
//! Certificate    = SEQUENCE { TBSCertificate, ... }
//! TBSCertificate = SEQUENCE { [0] version, serial, algorithm, issuer, Validity, ... }
//! Validity       = SEQUENCE { notBefore, notAfter }, each UTCTime or GeneralizedTime
//! ```
//! Whether it is a good certificate is found out by whoever verifies it.

use std::time::Duration;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate counts, as times since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) begins: Duration,
    pub(crate) ends: Duration,
}

/// When a certificate counts, if that can be read.
pub(crate) fn of(certificate: &[u8]) -> Option<Validity> {
    let (tag, certificate, _) = element(certificate)?;
    let (inner_tag, mut rest, _) = element(certificate)?;
    if tag != SEQUENCE || inner_tag != SEQUENCE {
        return None;
    }
    if element(rest)?.0 == VERSION {
        rest = element(rest)?.2;
    }
    // Serial, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (tag, begins, rest) = element(validity)?;
    let begins = seconds(tag, std::str::from_utf8(begins).ok()?)?;
    let (tag, ends, _) = element(rest)?;
    let ends = seconds(tag, std::str::from_utf8(ends).ok()?)?;
    Some(Validity { begins: Duration::from_secs(begins), ends: Duration::from_secs(ends) })
}

/// The first element: its tag, its content, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match usize::from(first) {
        short @ ..0x80 => (short, rest),
        long => {
            let (length, rest) = rest.split_at_checked(long - 0x80)?;
            let length = length.iter().try_fold(0usize, |sum, byte| {
                sum.checked_mul(256)?.checked_add(usize::from(*byte))
            });
            (length?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn seconds(tag: u8, text: &str) -> Option<u64> {
    let digits = text.strip_suffix('Z').filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: u64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    let days = days_before(year, month)?.checked_add(day.checked_sub(1)?)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> Option<u64> {
    let months = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let before = months.get(..usize::try_from(month.checked_sub(1)?).ok()?)?;
    let extra = u64::from(month > 2 && leap(year));
    (month <= 12).then(|| years + before.iter().sum::<u64>() + extra)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn begin_and_end_are_read_as_they_were_written() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["node1".to_owned()]).unwrap();
        let read = |params: &CertificateParams| {
            let read = of(params.self_signed(&key).unwrap().der());
            read.map(|read| (read.begins.as_secs(), read.ends.as_secs()))
        };
        // The seconds are what `date -u -d DATE +%s` says.
        for (year, month, day, expected) in [
            (2026, 11, 29, 1_795_910_400),
            (2028, 2, 29, 1_835_395_200),
            (2028, 3, 1, 1_835_481_600),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (2101, 3, 1, 4_139_078_400),
        ] {
            params.not_before = date_time_ymd(2026, 11, 29);
            params.not_after = date_time_ymd(year, month, day);
            let begins = 1_795_910_400;
            assert_eq!(read(&params), Some((begins, expected)), "{year}-{month}-{day}");
            (params.not_before, params.not_after) = (params.not_after, date_time_ymd(2101, 3, 2));
            assert_eq!(read(&params).unwrap().0, expected, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_no_reason_to_panic() {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["node1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        for at in 0..certificate.len() {
            let _ = of(&certificate[..at]);
            let mut changed = certificate.clone();
            for value in [0, 0x7f, 0x80, 0x88, 0xff] {
                changed[at] = value;
                let _ = of(&changed);
            }
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(b"no certificate"), None);
    }
}
