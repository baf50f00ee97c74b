//! The node's clocks.
//!
//! Decisions run on the clock that also counts while the machine is suspended; wall time is only
//! shown to people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{BootId, Time};
use rustix::time::{ClockId, clock_gettime};

/// Now, for decisions, in whole microseconds: finer is of no use to them, and a recording of them
/// would be longer.
pub(crate) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds * 1_000_000_000 + nanoseconds / 1000 * 1000)
}

/// Now, for people: time since 1970.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Identity of the running boot of the operating system.
pub(crate) fn boot_id() -> std::io::Result<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map(BootId).map_err(std::io::Error::other)
}

/// An unpredictable number.
pub(crate) fn random() -> u128 {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // Without the call there is no kernel this program supports.
            Err(_) => break,
        }
    }
    u128::from_le_bytes(bytes)
}
