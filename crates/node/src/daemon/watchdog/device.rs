//! The kernel's watchdog device: opened, fed, stopped; when, is decided by `cluster::watchdog`.
//!
//! It runs from its opening on. Closed without a word, as when its daemon dies or becomes another
//! one, it goes on running: whoever opens it next feeds it. Only what was written before closing it
//! stops it, and not even that where the kernel was built or told so (`nowayout`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Updater, ioctl, opcode};

/// What is written to stop it when it is closed.
const FAREWELL: &[u8] = b"V";
/// Any other byte feeds it.
const FOOD: &[u8] = b"\0";

/// Where the kernel tells of its watchdogs.
const CLASS: &str = "/sys/class/watchdog";

const GET_SUPPORT: rustix::ioctl::Opcode = opcode::read::<Support>(b'W', 0);
const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'W', 6);
const GET_TIMEOUT: rustix::ioctl::Opcode = opcode::read::<i32>(b'W', 7);
/// It stops only when it is told so before it is closed, and not whenever it is closed.
const MAGIC_CLOSE: u32 = 0x0100;

/// What a driver says of itself: `struct watchdog_info`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Support {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// An open device: it runs.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    /// What the driver calls itself.
    pub(super) identity: String,
    /// After which time without food it resets the machine, as the device has it.
    pub(super) timeout: Duration,
    /// Whether it goes on running when its daemon dies.
    pub(super) outlives: bool,
}

impl Device {
    /// Opens it, by which it runs, with a time that it may round, and feeds it.
    ///
    /// # Errors
    /// It is not there, another program has it, or it is no watchdog.
    pub(super) fn open(path: &Path, timeout: Duration) -> io::Result<Device> {
        if !fs::metadata(path)?.file_type().is_char_device() {
            return Err(io::Error::other("it is no device"));
        }
        // What the daemon starts does not inherit it: it would hold it open.
        let mut file = File::options().write(true).open(path)?;
        let described = support(&file).map_err(io::Error::from).and_then(|support| {
            let asked = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
            let timeout = set_timeout(&file, asked)?;
            // One that ran already need not begin anew when it is opened.
            (&file).write_all(FOOD)?;
            Ok((support, timeout))
        });
        match described {
            Ok((support, timeout)) => {
                let name = support.identity.split(|byte| *byte == 0).next().unwrap_or_default();
                Ok(Device {
                    identity: String::from_utf8_lossy(name).into_owned(),
                    timeout: Duration::from_secs(timeout),
                    outlives: support.options & MAGIC_CLOSE != 0,
                    file,
                })
            }
            Err(error) => {
                // One that is not understood is not left running.
                let _ = file.write_all(FAREWELL);
                Err(error)
            }
        }
    }

    /// Some file in its place.
    #[cfg(test)]
    pub(super) fn of(file: File, timeout: Duration) -> Device {
        Device { file, identity: "some file".to_owned(), timeout, outlives: true }
    }

    /// Feeds it.
    ///
    /// # Errors
    /// As the driver says.
    pub(super) fn feed(&mut self) -> io::Result<()> {
        self.file.write_all(FOOD)
    }

    /// Stops it, unless nothing does.
    ///
    /// # Errors
    /// As the driver says.
    pub(super) fn stop(mut self) -> io::Result<()> {
        self.file.write_all(FAREWELL)
    }
}

/// Whether a device is known to stop when it is told. Of one that is there the kernel has to say
/// so: started in vain, one that does not would reset a machine that has nothing to do.
pub(super) fn stops(path: &Path) -> bool {
    stops_by(path, Path::new(CLASS))
}

fn stops_by(path: &Path, class: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The one without a number is the first one.
    let name = if name == "watchdog" { "watchdog0" } else { name };
    match fs::read_to_string(class.join(name).join("nowayout")) {
        Ok(said) => said.trim() == "0",
        // One that is not there does not run either.
        Err(_) => matches!(fs::exists(path), Ok(false)),
    }
}

#[allow(unsafe_code, reason = "no safe wrapper asks a watchdog what it is")]
fn support(file: &File) -> Result<Support, Errno> {
    // SAFETY: the kernel writes one `struct watchdog_info`, which has this layout and no padding,
    // and any bytes are a value of it.
    unsafe { ioctl(file, Getter::<GET_SUPPORT, Support>::new()) }
}

/// Sets the time, in seconds; what the device made of it. Some have one that cannot be set.
#[allow(unsafe_code, reason = "no safe wrapper sets the time of a watchdog")]
fn set_timeout(file: &File, seconds: i32) -> Result<u64, Errno> {
    let mut seconds = seconds;
    // SAFETY: the kernel reads and writes one `int`.
    let set = unsafe { ioctl(file, Updater::<SET_TIMEOUT, i32>::new(&mut seconds)) };
    match set {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOTTY) => {}
        Err(errno) => return Err(errno),
    }
    // SAFETY: the kernel writes one `int`, of which any bytes are a value.
    let seconds = unsafe { ioctl(file, Getter::<GET_TIMEOUT, i32>::new()) }?;
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or(Errno::INVAL)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it needs and stops")]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_the_kernel_has_the_numbers_of_its_header() {
        assert_eq!(
            (GET_SUPPORT, SET_TIMEOUT, GET_TIMEOUT),
            (0x8028_5700, 0xc004_5706, 0x8004_5707)
        );
    }

    #[test]
    fn what_is_no_watchdog_is_refused() {
        let open = |path: &str| Device::open(Path::new(path), Duration::from_secs(10));
        assert_eq!(open("/dev/watchdog-none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open("/proc/version").unwrap_err().to_string().contains("no device"));
        assert_eq!(open("/dev/null").unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert!(stops(Path::new("/dev/watchdog-none")));
    }

    #[test]
    fn a_device_of_which_the_kernel_does_not_say_that_it_stops_counts_as_one_that_does_not() {
        let unique = crate::clock::random();
        let class = std::env::temp_dir().join(format!("evenkeel-watchdog-class-{unique:x}"));
        let there = Path::new("/dev/null");
        assert!(!stops_by(there, &class), "nothing is said of it");
        fs::create_dir_all(class.join("null")).unwrap();
        for (said, stops) in [("0\n", true), ("1\n", false), ("", false), ("yes\n", false)] {
            fs::write(class.join("null/nowayout"), said).unwrap();
            assert_eq!(stops_by(there, &class), stops, "{said:?}");
        }
        assert!(stops_by(Path::new("/dev/watchdog-none"), &class), "it is not there");
        fs::remove_dir_all(class).unwrap();
    }
}
