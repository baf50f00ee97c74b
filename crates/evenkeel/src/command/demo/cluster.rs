//! Builds the cluster of the demo: a lab, the nodes' files, daemons and a witness.
//!
//! Afterwards it is an ordinary cluster; nothing here knows what will be done to it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lab::interrupt::Interrupt;
use lab::{Disk, Host, HostSpec, Lab, LabOptions, Process, SpawnSpec};
use model::ModuleName;

use super::application::Application;
use super::screen::Screen;
use super::{Failure, Result};
use crate::client::Client;

/// The nodes, the one with the first data first.
pub(super) const NODES: [&str; 2] = ["node1", "node2"];
const WITNESS: &str = "witness";
const CLIENT: &str = "client";
const NETWORK: &str = "lan0";
/// Where a node's own files are.
pub(super) const ROOT: &str = "/mnt/state";
const WITNESS_PORT: u16 = 7623;
const WITNESS_DISK_BYTES: u64 = 64 << 20;
/// Files larger than this are left out of what is saved after a failure, in bytes.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// A running cluster.
pub(super) struct Cluster {
    pub(super) lab: Lab,
    pub(super) application: Application,
    pub(super) module: ModuleName,
    daemons: BTreeMap<&'static str, Process>,
}

impl Cluster {
    /// Boots the hosts and starts the daemons and the witness. The module is not started.
    pub(super) fn build(
        name: &str,
        application: Application,
        interrupt: &Interrupt,
    ) -> Result<Cluster> {
        let module = ModuleName::new(application.module())
            .map_err(|error| Failure::Other(error.to_string()))?;
        let witness = Disk { bytes: WITNESS_DISK_BYTES, ..Disk::new("state", ROOT) };
        let witness = HostSpec { disks: vec![witness], ..HostSpec::client(WITNESS) };
        let lab = Lab::create(LabOptions {
            name: name.to_owned(),
            binary: std::env::current_exe().map_err(Failure::io("cannot find the own binary"))?,
            networks: vec![NETWORK.to_owned()],
            hosts: vec![
                HostSpec::node(NODES[0]),
                HostSpec::node(NODES[1]),
                witness,
                HostSpec::client(CLIENT),
            ],
        })?;
        let mut cluster = Cluster { lab, application, module, daemons: BTreeMap::new() };
        cluster.start_witness()?;
        for node in NODES {
            if interrupt.requested() {
                return Err(Failure::Interrupted);
            }
            cluster.furnish(node)?;
            cluster.start_daemon(node)?;
        }
        Ok(cluster)
    }

    /// Starts the daemon of a node that was booted.
    pub(super) fn start_daemon(&mut self, node: &'static str) -> Result<()> {
        let argv = ["/run/lab/evenkeel", "--root", ROOT, "daemon"];
        let daemon = self.lab.host(node)?.spawn(SpawnSpec::new(argv).log("daemon.log"))?;
        self.daemons.insert(node, daemon);
        Ok(())
    }

    /// Kills a node with everything on it.
    pub(super) fn kill(&mut self, node: &'static str) -> Result<()> {
        self.daemons.remove(node);
        Ok(self.lab.kill(node)?)
    }

    /// An error when the daemon of a node that is up has ended.
    pub(super) fn check_daemons(&self) -> Result<()> {
        NODES.into_iter().try_for_each(|node| self.check_daemon(node))
    }

    fn check_daemon(&self, node: &str) -> Result<()> {
        match self.daemons.get(node) {
            Some(daemon) if !daemon.is_alive() => {
                let said = fs::read_to_string(&daemon.log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                Err(Failure::Other(format!("the daemon of {node} ended: {}", last.join("\n  "))))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn host(&self, node: &str) -> Result<Host> {
        Ok(self.lab.host(node)?)
    }

    pub(super) fn client(&self) -> Result<Host> {
        self.host(CLIENT)
    }

    /// The replicated directory of a node as its file system has it.
    pub(super) fn replica(&self, node: &str) -> Result<PathBuf> {
        Ok(self.host(node)?.disk_path("data")?.join(self.application.directory()))
    }

    /// Copies all logs to a place that outlives the lab, and says where.
    pub(super) fn save_logs(&self, screen: &mut Screen) {
        let target = format!("evenkeel-{}-logs-{}", self.lab.name(), std::process::id());
        let target = std::env::temp_dir().join(target);
        for host in self.lab.hosts().unwrap_or_default() {
            let to = target.join(host.name());
            copy_logs(&host.dir(), &to);
            if let Ok(state) = host.path(Path::new(ROOT).join("var/lib/evenkeel")) {
                copy_logs(&state, &to.join("state"));
            }
        }
        screen.plain(&format!("Logs of all hosts: {}", target.display()));
    }

    fn start_witness(&self) -> Result<()> {
        let host = self.host(WITNESS)?;
        let listen = SocketAddr::new(host.address(NETWORK)?, WITNESS_PORT).to_string();
        let directory = format!("{ROOT}/witness");
        let inside = host.path(&directory)?;
        fs::create_dir_all(inside).map_err(Failure::io("cannot make the witness's directory"))?;
        let witness = ["/run/lab/evenkeel", "witness", "--open"];
        let argv = [&witness[..], &["--listen", &listen, "--directory", &directory]].concat();
        host.spawn(SpawnSpec::new(argv).log("witness.log"))?;
        Ok(())
    }

    /// Writes the configuration, equal on both nodes, and the first data, on the first node.
    fn furnish(&self, node: &str) -> Result<()> {
        let host = self.host(node)?;
        host.write_file(format!("{ROOT}/etc/evenkeel/cluster.toml"), self.configuration()?)?;
        let file = format!("{ROOT}/etc/evenkeel/modules/{}.toml", self.module);
        host.write_file(file, self.application.configuration())?;
        let directory = host.path(format!("/srv/{}", self.application.directory()))?;
        fs::create_dir_all(directory).map_err(Failure::io("cannot make the data directory"))?;
        if node == NODES[0] { self.application.prepare(&host) } else { Ok(()) }
    }

    fn configuration(&self) -> Result<String> {
        let mut text = "cluster = \"demo\"\n".to_owned();
        for node in NODES {
            let address = self.host(node)?.address(NETWORK)?;
            text += &format!(
                "\n[[node]]\nname = \"{node}\"\naddresses = {{ {NETWORK} = \"{address}\" }}\n"
            );
        }
        let witness = self.host(WITNESS)?.address(NETWORK)?;
        Ok(text + &format!("\n[witness]\naddress = \"{witness}\"\n"))
    }
}

/// The way to the daemon of a host, from outside of it.
pub(super) fn control(host: &Host) -> Result<Client> {
    Ok(Client::at(&host.path(Path::new(ROOT).join("run/evenkeel/control.sock"))?))
}

/// Copies logs, events and records. What cannot be copied is missing; a failure is being reported.
pub(super) fn copy_logs(from: &Path, to: &Path) {
    let _ = fs::create_dir_all(to);
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let wanted = ["log", "json", "jsonl"];
        let extension = path.extension().and_then(|extension| extension.to_str());
        if metadata.is_dir() {
            copy_logs(&path, &target);
        } else if metadata.len() <= LOG_BYTES_MAX && extension.is_some_and(|e| wanted.contains(&e))
        {
            let _ = fs::copy(&path, &target);
        }
    }
}
