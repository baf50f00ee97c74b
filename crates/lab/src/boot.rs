//! Starting and ending one host, from the outside: its directory, its cgroup, its init. What the
//! init does inside is in [`crate::init`].

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{During, Error, Result, cannot};
use crate::options::{HostSpec, InitKind};
use crate::proc::{self, ProcessId};
use crate::protocol::{BOOT_FILE, Boot, BootReport, LOG};
use crate::state::{LabState, Store, write_json};
use crate::{cgroup, disk, init, network, plan};

/// Makes the directory and the disks of a host.
pub(crate) fn furnish(store: &Store, spec: &HostSpec) -> Result<()> {
    let dir = store.host_dir(&spec.name);
    fs::create_dir(&dir).during(|| cannot("create", &dir))?;
    spec.disks.iter().try_for_each(|disk| disk::create(&dir, disk))
}

/// Boots the switch and makes its bridges.
pub(crate) fn switch(store: &Store) -> Result<()> {
    let spec = HostSpec::client(plan::SWITCH);
    boot(store, &store.load()?, &spec)?;
    network::build_switch(&store.load()?)
}

/// Boots a host and joins it to its networks.
pub(crate) fn host(store: &Store, name: &str) -> Result<()> {
    let state = store.load()?;
    if state.init(name).is_ok() {
        return Err(Error::Invalid(format!("the host {name} is running already")));
    }
    disk::wait_released(&store.host_dir(name))?;
    boot(store, &state, state.spec(name)?)?;
    let connected = network::connect(&store.load()?, name);
    if connected.is_err() {
        kill(store, name)?;
    }
    connected
}

/// Kills a host at once and waits until it has let go of its disks. Of its network the cables go
/// first: without its packet filters it would answer what they kept back, as no dead host does.
pub(crate) fn kill(store: &Store, name: &str) -> Result<()> {
    let state = store.load()?;
    // Keeps all of its network as it is while its processes end; there is none if it is down.
    let inside = state.init(name).and_then(network::namespace);
    let processes: Vec<ProcessId> =
        [state.inits.get(name), state.watchers.get(name)].into_iter().flatten().copied().collect();
    proc::kill_and_wait(&processes).during(|| format!("cannot kill {name}"))?;
    store.update(|state| {
        state.inits.remove(name);
        state.watchers.remove(name);
    })?;
    let cut = if inside.is_ok() { network::disconnect(&state, name) } else { Ok(()) };
    drop(inside);
    disk::wait_released(&store.host_dir(name))?;
    cut
}

fn boot(store: &Store, state: &LabState, spec: &HostSpec) -> Result<()> {
    let name = &spec.name;
    let dir = store.host_dir(name);
    let cgroup = cgroup::create(&state.name, name)?;
    if let Some(cgroup) = &cgroup {
        // A host that was killed frozen left this behind.
        cgroup::set_frozen(cgroup, false)?;
    }
    let boot = Boot {
        spec: spec.clone(),
        binary: state.binary.clone(),
        owner: state.owner.filter(|_| !state.kept),
        cgroup,
        hosts_file: hosts_file(state),
    };
    write_json(&dir.join(BOOT_FILE), &boot)?;
    let log_path = dir.join(LOG);
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.during(|| cannot("open", &log_path))?;
    let (reports, writer) = std::io::pipe().during(|| "cannot make a pipe".to_owned())?;
    let mut command = Command::new(&state.binary);
    command.arg(init::COMMAND).arg(&dir).stdin(Stdio::null()).stdout(writer).stderr(log);
    let mut child = command.spawn().during(|| format!("cannot run {}", state.binary.display()))?;
    // Its copy of the pipe's end would keep the report open for ever.
    drop(command);
    let mut init = None;
    let result = await_ready(reports, &mut init, name, &log_path);
    let watcher = (spec.init == InitKind::Systemd && boot.owner.is_some())
        .then(|| i32::try_from(child.id()).ok().and_then(ProcessId::of))
        .flatten();
    if watcher.is_none() {
        child.wait().during(|| format!("cannot wait for the init of {name}"))?;
    }
    let init = match result {
        Ok(init) => init,
        Err(error) => {
            let ends: Vec<ProcessId> = init.into_iter().chain(watcher).collect();
            proc::kill_and_wait(&ends).during(|| format!("cannot end {name}"))?;
            return Err(error);
        }
    };
    store.update(|state| {
        state.inits.insert(name.clone(), init);
        state.watchers.extend(watcher.map(|watcher| (name.clone(), watcher)));
    })
}

/// Reads what an init says until it is ready; `init` is set as soon as it exists.
fn await_ready(
    reports: std::io::PipeReader,
    init: &mut Option<ProcessId>,
    host: &str,
    log: &Path,
) -> Result<ProcessId> {
    let mut ready = false;
    let mut failure = None;
    let failed = |message: String| Error::Boot { host: host.to_owned(), message };
    for line in BufReader::new(reports).lines() {
        let line = line.during(|| format!("cannot read the report of {host}"))?;
        match serde_json::from_str(&line) {
            Ok(BootReport::Pid(pid)) => *init = ProcessId::of(pid),
            Ok(BootReport::Ready) => ready = true,
            Ok(BootReport::Failed(message)) => failure = Some(message),
            Err(_) => failure = Some(format!("it said {line:?}")),
        }
        if let (Some(init), true) = (*init, ready) {
            return Ok(init);
        }
    }
    let log = fs::read_to_string(log).unwrap_or_default();
    let ended = || format!("it ended at once; its log ends with: {}", tail(&log));
    Err(failed(failure.unwrap_or_else(ended)))
}

fn tail(text: &str) -> &str {
    let text = text.trim_end();
    text.char_indices().rev().nth(500).map_or(text, |(index, _)| &text[index..])
}

/// All hosts by name, with their addresses on the first network they are joined to.
fn hosts_file(state: &LabState) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n".to_owned();
    for (position, spec) in state.hosts.iter().enumerate() {
        for (index, network) in state.networks_of(spec).iter().enumerate() {
            let Ok(number) = state.network_position(network) else {
                continue;
            };
            let address = plan::address(number, position);
            let name = &spec.name;
            // Writing to a string cannot fail.
            let _ = match index {
                0 => writeln!(text, "{address} {name} {name}-{network}"),
                _ => writeln!(text, "{address} {name}-{network}"),
            };
        }
    }
    text
}
