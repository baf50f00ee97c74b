//! Threads that must not be kept waiting by the load of the machine, and memory that must not have
//! to be read back from a disk first.
//!
//! Only the daemon's: an application, a script or a replicator that such a thread starts runs as
//! any other program does. Which threads are urgent, their owners decide.

use std::fmt;
use std::io;

use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// The lowest of the real-time priorities: before every ordinary thread, and no other program that
/// somebody has given a priority has to wait for ours.
const REAL_TIME_PRIORITY: libc::c_int = 1;
/// The best share of the processor that an ordinary thread may have.
const NICE_BEST: i32 = -20;

/// How much a thread is preferred to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It runs whenever it wants to.
    RealTime,
    /// It has the best share of the processor.
    Preferred,
    /// Like any other: the system grants nothing.
    Ordinary,
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Urgency::RealTime => "real-time",
            Urgency::Preferred => "preferred",
            Urgency::Ordinary => "ordinary",
        })
    }
}

/// Keeps what the process has in memory from being swapped out, now and later. Memory that is
/// reserved and was never touched, such as most of a thread's stack, stays unused.
///
/// # Errors
/// Without the right to do so for as much as will be needed.
pub(crate) fn lock_memory() -> io::Result<()> {
    let limit = getrlimit(Resource::Memlock).current;
    let capable = capabilities(None)?.effective.contains(CapabilitySet::IPC_LOCK);
    may_lock(limit, capable)?;
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Ok(rustix::mm::mlockall(flags)?)
}

/// Below a limit, memory could be locked now, and later there would be none to be had at all.
fn may_lock(limit: Option<u64>, capable: bool) -> io::Result<()> {
    match limit {
        Some(bytes) if !capable => Err(io::Error::other(format!(
            "no more than {bytes} bytes may be locked; grant CAP_IPC_LOCK or LimitMEMLOCK=infinity"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Makes the calling thread run whenever it wants to; only for one that wants little, whatever
/// others send.
pub(crate) fn hurry() -> Urgency {
    if set_policy(libc::SCHED_FIFO, REAL_TIME_PRIORITY).is_ok() {
        return Urgency::RealTime;
    }
    prefer()
}

/// Gives the calling thread the best share of the processor, and what it starts the usual one.
pub(crate) fn prefer() -> Urgency {
    let ordinary = set_policy(libc::SCHED_OTHER, 0);
    match ordinary.and_then(|()| Ok(rustix::process::setpriority_process(None, NICE_BEST)?)) {
        Ok(()) => Urgency::Preferred,
        Err(_) => Urgency::Ordinary,
    }
}

/// Sets how the calling thread is scheduled; its children begin anew.
#[allow(unsafe_code, reason = "no safe wrapper sets the policy of a thread")]
fn set_policy(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    // SAFETY: the structure is valid when zeroed (some libraries have more fields than the one set
    // here), and is read by the call alone; 0 names the calling thread.
    let result = unsafe {
        let mut parameters: libc::sched_param = std::mem::zeroed();
        parameters.sched_priority = priority;
        libc::sched_setscheduler(0, policy | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Nice value and policy from a `stat` of the kernel.
    fn scheduled(stat: &str) -> (i32, u32) {
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    fn of_this_thread() -> (i32, u32) {
        scheduled(&fs::read_to_string("/proc/thread-self/stat").unwrap())
    }

    fn of_a_child() -> (i32, u32) {
        let output = Command::new("cat").arg("/proc/self/stat").output().unwrap();
        scheduled(std::str::from_utf8(&output.stdout).unwrap())
    }

    #[test]
    fn memory_is_locked_only_if_all_of_it_may_be() {
        assert!(may_lock(None, false).is_ok() && may_lock(Some(1 << 26), true).is_ok());
        let refused = may_lock(Some(1 << 26), false).unwrap_err().to_string();
        assert!(refused.contains("67108864 bytes"), "{refused}");
    }

    #[test]
    fn urgent_threads_are_preferred_and_what_they_start_is_not() {
        thread::spawn(|| {
            let usual = of_this_thread();
            assert_eq!(prefer(), Urgency::Preferred, "this test needs root");
            assert_eq!(of_this_thread(), (NICE_BEST, libc::SCHED_OTHER.cast_unsigned()));
            assert_eq!(of_a_child(), (0, usual.1));
            assert_eq!(thread::spawn(of_this_thread).join().unwrap(), (0, usual.1));
            match hurry() {
                Urgency::RealTime => {
                    assert_eq!(of_this_thread().1, libc::SCHED_FIFO.cast_unsigned());
                }
                // Inside a group of version 1 without real-time of its own.
                other => assert_eq!(other, Urgency::Preferred),
            }
            assert_eq!(of_a_child(), (0, usual.1));
        })
        .join()
        .unwrap();
    }
}
