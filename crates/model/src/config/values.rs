//! Texts that stand for something: durations, addresses, paths, names of units.
//!
//! Each function takes the text alone and answers the value or the problem with its mend. Whether a
//! value fits the rest of the file is not judged here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Problem, allowed};
use crate::Fingerprint;

/// Longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Port of a witness when none is given.
pub(super) const WITNESS_PORT: u16 = 7623;

/// Longest name of a network interface that the kernel accepts, in bytes.
const INTERFACE_BYTES_MAX: usize = 15;

/// A name of any of the three kinds.
pub(super) fn name<T>(text: &str) -> Result<T, Problem>
where
    T: TryFrom<String, Error = crate::InvalidName>,
{
    T::try_from(text.to_owned()).map_err(|error| Problem::new(error.to_string()))
}

/// One of several words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(Problem::new(format!("`{text}` is not allowed here")).help(allowed(text, &known)))
}

/// A whole number with its unit, within limits (both included).
pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, Problem> {
    let limits = format!("between {} and {}", show(least), show(most));
    let wrong = || {
        Problem::new(format!("`{text}` is not a duration"))
            .help("write a whole number and its unit, ms, s, m or h, such as \"2s\"")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => {
            return Err(Problem::new(format!("`{text}` has no unit"))
                .help(format!("write \"{text}s\" for seconds or \"{text}ms\" for milliseconds")));
        }
        _ => return Err(wrong()),
    };
    let duration = number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)?;
    if duration < least || duration > most {
        return Err(Problem::new(format!("`{text}` is out of range")).help(format!("use {limits}")));
    }
    Ok(duration)
}

/// A duration in whole seconds, for what cannot be set more finely.
pub(super) fn seconds(text: &str, least: Duration, most: Duration) -> Result<Duration, Problem> {
    let duration = duration(text, least, most)?;
    if duration.subsec_nanos() == 0 {
        return Ok(duration);
    }
    let next = duration.as_secs() + 1;
    Err(Problem::new(format!("`{text}` is not a whole number of seconds"))
        .help(format!("write \"{next}s\", or another one")))
}

/// A rate, such as "50MB/s".
pub(super) fn rate(text: &str) -> Result<u64, Problem> {
    bytes_per_second(text).ok_or_else(|| {
        Problem::new(format!("`{text}` is not a rate"))
            .help("write a whole number and its unit, kB/s, MB/s or GB/s, such as \"50MB/s\"")
    })
}

/// Bytes per second of a text such as `50MB/s`: a whole number above 0 and its unit, which is
/// `kB/s`, `MB/s` or `GB/s`, each a thousand of the one before.
#[must_use]
pub fn bytes_per_second(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "kB/s" => 1000,
        "MB/s" => 1_000_000,
        "GB/s" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|rate| *rate > 0)
}

/// An address of a node.
pub(super) fn host_address(text: &str) -> Result<IpAddr, Problem> {
    let wrong = Problem::new(format!("`{text}` is not an IP address"));
    if let Some((address, _)) = text.split_once('/').filter(|(a, _)| a.parse::<IpAddr>().is_ok()) {
        return Err(wrong.help(format!("leave the prefix length out: \"{address}\"")));
    }
    let Ok(address) = text.parse() else {
        return Err(wrong.help("write an IPv4 or IPv6 address, such as \"10.0.0.1\""));
    };
    usable(address)
}

/// Where a node listens: one of its own addresses, or all of them.
pub(super) fn own_address(text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| {
        Problem::new(format!("`{text}` is not an IP address"))
            .help("write \"0.0.0.0\" for all of IPv4, \"::\" for all, or leave it out")
    })
}

/// Where a witness listens: an address, with or without a port.
pub(super) fn witness_address(text: &str) -> Result<SocketAddr, Problem> {
    let parsed = text
        .parse()
        .or_else(|_| text.parse().map(|address: IpAddr| SocketAddr::new(address, WITNESS_PORT)));
    let Ok(address) = parsed else {
        return Err(Problem::new(format!("`{text}` is not an address of a witness"))
            .help("write an IP address, with or without a port, such as \"10.0.0.3:7623\""));
    };
    usable(address.ip())?;
    if address.port() == 0 {
        return Err(Problem::new("a witness cannot listen on port 0")
            .help(format!("leave the port out for the usual {WITNESS_PORT}")));
    }
    Ok(address)
}

/// The fingerprint of a witness's certificate.
pub(super) fn fingerprint(text: &str) -> Result<Fingerprint, Problem> {
    text.parse().map_err(|error: crate::BadFingerprint| {
        Problem::new(format!("`{text}` is no fingerprint: {error}"))
            .help("`evenkeel witness show` on the witness's machine prints it")
    })
}

/// A virtual address with the prefix length of its subnet.
pub(super) fn virtual_address(text: &str) -> Result<(IpAddr, u8), Problem> {
    let Some((address, prefix)) = text.split_once('/') else {
        let address = host_address(text)?;
        return Err(Problem::new(format!("`{text}` lacks the prefix length of its subnet")).help(
            format!("write it after a slash, such as \"{text}/{}\"", usual_prefix(address)),
        ));
    };
    let address = host_address(address)?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if (1..=bits).contains(&prefix) => Ok((address, prefix)),
        _ => Err(Problem::new(format!("`{prefix}` is not a prefix length"))
            .help(format!("use a number from 1 to {bits}"))),
    }
}

/// A directory to replicate: absolute and in its shortest spelling.
pub(super) fn directory(text: &str) -> Result<PathBuf, Problem> {
    let Some(below_root) = text.strip_prefix('/') else {
        return Err(Problem::new(format!("`{text}` is not an absolute path"))
            .help("start it with a slash, such as \"/srv/shop\""));
    };
    if text.contains('\0') {
        return Err(Problem::new("a path cannot contain a zero byte"));
    }
    let parts: Vec<&str> =
        below_root.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(Problem::new(format!("`{text}` contains `..`"))
            .help("write the path without it: links on the way would change its meaning"));
    }
    if parts.is_empty() {
        return Err(Problem::new("the root of the system cannot be replicated")
            .help("name the directories that hold the application's data"));
    }
    let shortest = format!("/{}", parts.join("/"));
    if shortest != text {
        return Err(Problem::new(format!("`{text}` is not in its shortest spelling"))
            .help(format!("write \"{shortest}\"")));
    }
    Ok(PathBuf::from(shortest))
}

/// A program: an absolute path.
pub(super) fn program(text: &str) -> Result<(), Problem> {
    if text.starts_with('/') {
        return Ok(());
    }
    Err(Problem::new(format!("`{text}` is not an absolute path"))
        .help("name the program with its whole path, such as \"/usr/bin/prog\""))
}

/// A file: an absolute path.
pub(super) fn file(text: &str) -> Result<PathBuf, Problem> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    Err(Problem::new(format!("`{text}` is not an absolute path"))
        .help("name the file with its whole path, such as \"/run/prog.pid\""))
}

/// The device of a watchdog. Nothing else may be opened in its place and written to.
pub(super) fn watchdog(text: &str) -> Result<PathBuf, Problem> {
    let rest = text.strip_prefix("/dev/watchdog");
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if rest.is_some_and(|rest| rest.len() <= NAME_BYTES_MAX && rest.chars().all(plain)) {
        return Ok(PathBuf::from(text));
    }
    Err(Problem::new(format!("`{text}` is not the device of a watchdog"))
        .help("name one such as \"/dev/watchdog\" or \"/dev/watchdog1\""))
}

/// The name of a program's file, without its directory.
pub(super) fn file_name(text: &str) -> Result<String, Problem> {
    let named = filled(text)?;
    if named.contains(['/', '\0']) || named.len() > NAME_BYTES_MAX {
        let name = named.rsplit('/').next().unwrap_or_default();
        return Err(Problem::new(format!("`{text}` is not the name of a program's file"))
            .help(format!("leave the directory out: \"{name}\"")));
    }
    Ok(named)
}

/// The name of a systemd unit, with or without its suffix.
pub(super) fn unit(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(format!("`{text}` is not the name of a systemd unit"))
        .help("write the name alone, such as \"nginx\" or \"postgresql@15-main.service\""))
}

/// The name of a network interface.
pub(super) fn interface(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if (1..=INTERFACE_BYTES_MAX).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(format!("`{text}` is not the name of a network interface"))
        .help(format!("use 1 to {INTERFACE_BYTES_MAX} characters, such as \"eth0\"")))
}

/// Any text but the empty one.
pub(super) fn filled(text: &str) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::new("this must not be empty"));
    }
    Ok(text.to_owned())
}

/// What is not replicated: a name in which `*` and `?` are wild, or a path below the directories.
pub(super) fn pattern(text: &str) -> Result<String, Problem> {
    let wrong =
        |why: &str, help: &str| Err(Problem::new(format!("`{text}` {why}")).help(help.to_owned()));
    let example = "use a name such as \"*.tmp\", or a path below the directories such as \
                   \"var/cache\"";
    let Some(path) = text.strip_suffix('/').or(Some(text)).filter(|path| !path.is_empty()) else {
        return wrong("names nothing", example);
    };
    if path.starts_with('/') {
        return wrong("is a path from the root of the machine", example);
    }
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return wrong("has an empty name or dots in it", example);
    }
    if text.contains('/') && text.contains(['*', '?']) {
        let help = "in a path nothing is wild; name each path, or give a name alone";
        return wrong("is a path with a wildcard", help);
    }
    if path.split('/').all(|name| name.bytes().all(|byte| byte == b'*')) {
        return wrong("leaves out everything", example);
    }
    if path.contains('\0') || path.split('/').any(|name| name.len() > NAME_BYTES_MAX) {
        return wrong("cannot be the name of a file", example);
    }
    Ok(text.to_owned())
}

fn usable(address: IpAddr) -> Result<IpAddr, Problem> {
    let why = if address.is_unspecified() {
        "stands for every address"
    } else if address.is_multicast() {
        "is a multicast address"
    } else {
        return Ok(address);
    };
    Err(Problem::new(format!("`{address}` {why}")).help("name the address of one host"))
}

fn usual_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}

fn show(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_their_unit_and_keep_their_limits() {
        let parse = |text| {
            duration(text, Duration::from_millis(200), Duration::from_secs(60))
                .map_err(|problem| problem.message)
        };
        assert_eq!(parse("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse("1m"), Ok(Duration::from_secs(60)));
        for bad in ["", "2", "s", "2 s", "2sec", "-2s", "1.5s", "199ms", "61s", "1h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("99999999999999999999h").is_err());
        assert!(parse("9999999999999999h").is_err());
    }

    #[test]
    fn what_is_set_in_seconds_takes_no_part_of_one() {
        let (least, most) = (Duration::from_secs(5), Duration::from_secs(120));
        let parse = |text| seconds(text, least, most).map_err(|problem| problem.help);
        assert_eq!(parse("7000ms").ok(), Some(Duration::from_secs(7)));
        assert_eq!(parse("2m").ok(), Some(most));
        assert!(parse("7500ms").unwrap_err().unwrap().contains("\"8s\""));
        assert!(parse("4s").is_err());
    }

    #[test]
    fn patterns_are_names_or_paths_below() {
        for good in ["*.tmp", "cache", "var/cache", "logs/", "a?b*", "ä"] {
            assert_eq!(pattern(good).map_err(|problem| problem.message), Ok(good.to_owned()));
        }
        for bad in ["", "/", "/srv/x", "a//b", "a/../b", ".", "..", "a/*.tmp", "*", "**", "x\0"] {
            assert!(pattern(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rates_need_their_unit_and_are_never_nothing() {
        assert_eq!(bytes_per_second("50MB/s"), Some(50_000_000));
        assert_eq!(bytes_per_second("1kB/s"), Some(1000));
        for bad in ["", "50", "0MB/s", "50MB", "50Mb/s", "-1MB/s", "MB/s", "99999999999999GB/s"] {
            assert_eq!(bytes_per_second(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_witness_has_the_usual_port_unless_it_names_one() {
        for (text, expected) in [
            ("10.0.0.3", "10.0.0.3:7623"),
            ("10.0.0.3:1", "10.0.0.3:1"),
            ("fd00::3", "[fd00::3]:7623"),
            ("[fd00::3]:8", "[fd00::3]:8"),
        ] {
            let parsed = witness_address(text).map_err(|problem| problem.message);
            assert_eq!(parsed, Ok(expected.parse().unwrap()), "{text}");
        }
        for bad in ["", "host", "10.0.0.3:0", "10.0.0.3:65536", "0.0.0.0", "ff02::1"] {
            assert!(witness_address(bad).is_err(), "{bad}");
        }
    }
}
