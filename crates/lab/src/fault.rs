//! Everything that breaks a lab on purpose, and mends it: kill, power, freeze, cut, fill. All of it
//! works from any process, for nothing is remembered outside of `lab.json` and the kernel.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{During, Error, Result, cannot};
use crate::init::own_mount;
use crate::proc::{ProcessId, Stat};
use crate::state::LabState;
use crate::{Lab, boot, cgroup, disk, network, plan, proc};

/// How often a freeze is looked at before it is given up.
const FREEZE_CHECKS: u32 = 1000;
/// How long between two looks: nothing announces that a thread has stopped.
const FREEZE_PAUSE: Duration = Duration::from_millis(5);
/// At how many looks in a row nobody may run.
const QUIET_LOOKS: u32 = 5;
/// Subcommands of evenkeel whose threads must have stopped before a host counts as frozen.
const OWN_DAEMONS: [&str; 4] = ["daemon", "replicator", "keeper", "witness"];

impl Lab {
    /// Kills a host at once: all its processes are gone when this returns, its disks unmounted.
    /// Nothing if it is down.
    ///
    /// # Errors
    /// When the lab has no such host or its disks are not let go.
    pub fn kill(&self, host: &str) -> Result<()> {
        self.store.load()?.position(host)?;
        boot::kill(&self.store, host)
    }

    /// Boots a host that is down: the same disks and addresses, new namespaces and boot id.
    ///
    /// # Errors
    /// When it is running already or does not come up.
    pub fn start(&self, host: &str) -> Result<()> {
        self.store.load()?.position(host)?;
        boot::host(&self.store, host)
    }

    /// Takes the power from a host: it stops in the middle of everything, and what its disks had
    /// not made durable is gone. [`Lab::start`] boots it again.
    ///
    /// # Errors
    /// When it is down or one of its file systems cannot be shut down; it is killed even then.
    pub fn power(&self, host: &str) -> Result<()> {
        let state = self.store.load()?;
        let init = state.init(host)?;
        if let Some(cgroup) = cgroup::of_lab(&state.name) {
            // Stops everybody between two disks' ends; best effort, the kill follows anyway.
            stop_daemons(init);
            let _ = cgroup::set_frozen(&cgroup.join(host), true);
        }
        let root = init.path("root");
        let disks = &state.spec(host)?.disks;
        let ends: Vec<Result<()>> =
            disks.iter().map(|disk| disk::shut_down(&own_mount(&root, &disk.name))).collect();
        boot::kill(&self.store, host)?;
        ends.into_iter().collect()
    }

    /// Stops all processes of a host where they are. Programs cannot be started on it until
    /// [`Lab::thaw`]; everything else works.
    ///
    /// # Errors
    /// When it is down, there is no cgroup version 2, or its processes do not stop.
    pub fn freeze(&self, host: &str) -> Result<()> {
        let state = self.store.load()?;
        let init = state.init(host)?;
        let cgroup = cgroup::required(&state.name, host, "freezing a host")?;
        let frozen = freeze_verified(init, &cgroup);
        if frozen.is_err() {
            cgroup::set_frozen(&cgroup, false)?;
            continue_daemons(init);
        }
        frozen
    }

    /// Lets a frozen host go on.
    ///
    /// # Errors
    /// When it is down or there is no cgroup version 2.
    pub fn thaw(&self, host: &str) -> Result<()> {
        let state = self.store.load()?;
        let init = state.init(host)?;
        cgroup::set_frozen(&cgroup::required(&state.name, host, "thawing a host")?, false)?;
        continue_daemons(init);
        Ok(())
    }

    /// Cuts the link between two hosts on all networks; both still reach all others.
    ///
    /// # Errors
    /// When the lab has no such hosts or the kernel refuses.
    pub fn cut(&self, one: &str, other: &str) -> Result<()> {
        self.change_cuts(one, other, |state| {
            add(&mut state.cuts, (one, other));
            add(&mut state.cuts, (other, one));
        })
    }

    /// Cuts only UDP, and so heartbeats, between two hosts; connections go on.
    ///
    /// # Errors
    /// As for [`Lab::cut`].
    pub fn cut_datagrams(&self, one: &str, other: &str) -> Result<()> {
        self.change_cuts(one, other, |state| {
            add(&mut state.datagram_cuts, (one, other));
            add(&mut state.datagram_cuts, (other, one));
        })
    }

    /// Cuts one direction only: what `from` sends no longer reaches `to`.
    ///
    /// # Errors
    /// As for [`Lab::cut`].
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        self.change_cuts(from, to, |state| add(&mut state.cuts, (from, to)))
    }

    /// Restores the link between two hosts, both ways.
    ///
    /// # Errors
    /// As for [`Lab::cut`].
    pub fn restore(&self, one: &str, other: &str) -> Result<()> {
        let apart = |(from, to): &(String, String)| {
            !((from == one && to == other) || (from == other && to == one))
        };
        self.change_cuts(one, other, |state| {
            state.cuts.retain(apart);
            state.datagram_cuts.retain(apart);
        })
    }

    /// Pulls the cable between a host and a network.
    ///
    /// # Errors
    /// When the lab has no such host or network.
    pub fn cut_network(&self, host: &str, network: &str) -> Result<()> {
        self.set_cable(host, network, false)
    }

    /// Plugs the cable between a host and a network in again.
    ///
    /// # Errors
    /// As for [`Lab::cut_network`].
    pub fn restore_network(&self, host: &str, network: &str) -> Result<()> {
        self.set_cable(host, network, true)
    }

    /// Restores every link and cable.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn heal(&self) -> Result<()> {
        let pulled = self.store.update(|state| {
            state.cuts.clear();
            state.datagram_cuts.clear();
            std::mem::take(&mut state.pulled)
        })?;
        let state = self.store.load()?;
        network::apply_cuts(&state)?;
        for (host, network) in pulled.iter().filter(|(host, _)| state.init(host).is_ok()) {
            network::set_plugged(&state, host, network, true)?;
        }
        Ok(())
    }

    /// Fills the disk below `path`, a file to be made, until nothing more fits, not even for root.
    /// Returns the size of the file in bytes.
    ///
    /// # Errors
    /// When the host is down or the file cannot be made.
    pub fn fill(&self, host: &str, path: impl AsRef<Path>) -> Result<u64> {
        disk::fill(&self.host(host)?.path(path)?)
    }

    /// Has every further access to a disk fail with an I/O error, until the host is booted anew.
    ///
    /// # Errors
    /// When the host is down or has no such disk.
    pub fn fail_disk(&self, host: &str, disk: &str) -> Result<()> {
        let init = self.store.load()?.init(host)?;
        disk::shut_down(&own_mount(&init.path("root"), disk))
    }

    /// Has a host's clocks that count since its boot start this many seconds ahead of the
    /// machine's when it is booted the next time. The time of day stays the machine's.
    ///
    /// # Errors
    /// When the lab has no such host.
    pub fn set_boot_clock(&self, host: &str, seconds_ahead: u32) -> Result<()> {
        let position = self.store.load()?.position(host)?;
        self.store.update(|state| state.hosts[position].boot_clock_ahead = seconds_ahead)
    }

    /// Removes what [`Lab::fill`] made.
    ///
    /// # Errors
    /// When the host is down or there is no such file.
    pub fn unfill(&self, host: &str, path: impl AsRef<Path>) -> Result<()> {
        let path = self.host(host)?.path(path)?;
        fs::remove_file(&path).during(|| cannot("remove", &path))
    }

    fn change_cuts(
        &self,
        one: &str,
        other: &str,
        change: impl FnOnce(&mut LabState),
    ) -> Result<()> {
        let state = self.store.load()?;
        state.position(one)?;
        state.position(other)?;
        if one == other {
            return Err(Error::Invalid(format!("{one} has no link to itself that could be cut")));
        }
        let state = self.store.update(|state| {
            change(state);
            state.clone()
        })?;
        network::apply_cuts(&state)
    }

    fn set_cable(&self, host: &str, network: &str, plugged: bool) -> Result<()> {
        let state = self.store.load()?;
        state.network_position(network)?;
        if !state.networks_of(state.spec(host)?).iter().any(|name| name == network) {
            return Err(Error::Invalid(format!("{host} is not joined to {network}")));
        }
        let cable = (host.to_owned(), network.to_owned());
        let state = self.store.update(|state| {
            state.pulled.retain(|pulled| *pulled != cable);
            if !plugged {
                state.pulled.push(cable);
            }
            state.clone()
        })?;
        // A host that is down has no cable; it is plugged or not when it boots.
        if running(&state, host) {
            network::set_plugged(&state, host, network, plugged)
        } else {
            Ok(())
        }
    }
}

fn running(state: &LabState, host: &str) -> bool {
    host != plan::SWITCH && state.init(host).is_ok()
}

fn add(cuts: &mut Vec<(String, String)>, (from, to): (&str, &str)) {
    let cut = (from.to_owned(), to.to_owned());
    if !cuts.contains(&cut) {
        cuts.push(cut);
    }
}

/// The cgroup freezer never reports a task that waits for FUSE as frozen. So our own daemons are
/// stopped by signal first and checked thread by thread; then it is enough that nobody runs: who
/// waits in the kernel is caught on its way back.
fn freeze_verified(init: ProcessId, cgroup: &Path) -> Result<()> {
    let daemons = stop_daemons(init);
    let stopped = |pid: &i32| thread_states(*pid).iter().all(|state| "TtZX".contains(*state));
    check("stopping of the daemons", || daemons.iter().all(stopped))?;
    cgroup::set_frozen(cgroup, true)?;
    let mut quiet = 0;
    check("freezing of the processes", || {
        let running = |pid: &i32| thread_states(*pid).contains(&'R');
        let still = !proc::in_namespace_of(init).iter().any(running);
        quiet = if still { quiet + 1 } else { 0 };
        cgroup::is_frozen(cgroup) || (!daemons.is_empty() && quiet >= QUIET_LOOKS)
    })
}

fn stop_daemons(init: ProcessId) -> Vec<i32> {
    let daemons = daemons(init);
    for daemon in daemons.iter().filter_map(|pid| ProcessId::of(*pid)) {
        daemon.signal(Signal::STOP);
    }
    daemons
}

fn continue_daemons(init: ProcessId) {
    for daemon in daemons(init).into_iter().filter_map(ProcessId::of) {
        daemon.signal(Signal::CONT);
    }
}

fn daemons(init: ProcessId) -> Vec<i32> {
    let mut pids = proc::in_namespace_of(init);
    pids.retain(|pid| is_own_daemon(&proc::arguments(*pid)));
    pids
}

fn is_own_daemon(arguments: &[String]) -> bool {
    let Some((program, arguments)) = arguments.split_first() else {
        return false;
    };
    let name = Path::new(program).file_name().unwrap_or_default();
    name == "evenkeel" && arguments.iter().any(|word| OWN_DAEMONS.contains(&word.as_str()))
}

/// The states of a process's threads; none if it has ended.
fn thread_states(pid: i32) -> Vec<char> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let stats = threads.flatten().map(|thread| Stat::read(&thread.path().join("stat")));
    stats.flatten().map(|stat| stat.state).collect()
}

fn check(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..FREEZE_CHECKS {
        if done() {
            return Ok(());
        }
        thread::sleep(FREEZE_PAUSE);
    }
    let seconds = (FREEZE_PAUSE * FREEZE_CHECKS).as_secs();
    Err(Error::Late { what: what.to_owned(), seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_daemons_are_told_from_other_programs() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(is_own_daemon(&words("/run/lab/evenkeel --root /mnt/state daemon")));
        assert!(is_own_daemon(&words("evenkeel replicator shop")));
        assert!(!is_own_daemon(&words("/usr/sbin/other daemon")));
        assert!(!is_own_daemon(&words("/run/lab/evenkeel status")));
        assert!(!is_own_daemon(&[]));
    }
}
