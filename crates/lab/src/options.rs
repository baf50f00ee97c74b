//! What a lab shall look like: hosts, networks, disks. Plain data, stored in `lab.json`; checked
//! here, built elsewhere.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan;

/// Size of a disk unless told otherwise, in bytes; the image is sparse.
pub const DISK_BYTES: u64 = 1 << 30;

/// Everything that [`crate::Lab::create`] needs to know.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Name of the lab: up to 20 characters of a-z, 0-9 and `-`.
    pub name: String,
    /// The evenkeel binary, which is also the init of every host.
    pub binary: PathBuf,
    /// Names of the networks, usually `lan0`, `lan1`, ...; one bridge each.
    pub networks: Vec<String>,
    /// The hosts, in the order of their addresses.
    pub hosts: Vec<HostSpec>,
}

/// One machine of the lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostSpec {
    /// Name of the host, also its host name.
    pub name: String,
    /// Its disks; empty for clients.
    pub disks: Vec<Disk>,
    /// Directories of its disks that appear elsewhere too.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// Networks it is joined to; `None` means all.
    #[serde(default)]
    pub networks: Option<Vec<String>>,
    /// What runs as pid 1.
    #[serde(default)]
    pub init: InitKind,
    /// How far its monotonic clocks are ahead of the machine's, in seconds.
    #[serde(default)]
    pub boot_clock_ahead: u32,
}

impl HostSpec {
    /// A node with a `state` disk at `/mnt/state` and a `data` disk at `/srv`.
    pub fn node(name: &str) -> Self {
        HostSpec {
            name: name.to_owned(),
            disks: vec![Disk::new("state", "/mnt/state"), Disk::new("data", "/srv")],
            binds: Vec::new(),
            networks: None,
            init: InitKind::Tiny,
            boot_clock_ahead: 0,
        }
    }

    /// A host without disks of its own: a client or a witness that need not survive.
    pub fn client(name: &str) -> Self {
        HostSpec { disks: Vec::new(), ..HostSpec::node(name) }
    }

    /// Shows `source`, a directory on one of the disks (made if missing), at `target` too.
    #[must_use]
    pub fn bind(mut self, source: &str, target: &str) -> Self {
        self.binds.push(Bind { source: source.into(), target: target.into() });
        self
    }

    /// Boots a real systemd instead of the tiny init.
    #[must_use]
    pub fn systemd(mut self) -> Self {
        self.init = InitKind::Systemd;
        self
    }
}

/// A file system of a host's own, in a sparse image on a loop device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Name of the disk; its image is `NAME.img`.
    pub name: String,
    /// Where the host mounts it.
    pub at: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Its file system.
    pub fs: FsType,
}

impl Disk {
    /// An ext4 disk of [`DISK_BYTES`] mounted at `at`.
    pub fn new(name: &str, at: &str) -> Self {
        Disk { name: name.to_owned(), at: at.into(), bytes: DISK_BYTES, fs: FsType::Ext4 }
    }

    /// File name of the image inside the host's directory.
    pub(crate) fn image(&self) -> String {
        format!("{}.img", self.name)
    }
}

/// File systems that a disk may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsType {
    /// Linux ext4.
    #[default]
    Ext4,
    /// Linux xfs; at least 300 MiB.
    Xfs,
    /// Linux btrfs; cannot be powered off, for it has no shutdown call before Linux 6.19.
    Btrfs,
}

impl FsType {
    /// Name as the kernel and mkfs know it.
    pub fn name(self) -> &'static str {
        match self {
            FsType::Ext4 => "ext4",
            FsType::Xfs => "xfs",
            FsType::Btrfs => "btrfs",
        }
    }

    /// Package that brings its mkfs.
    pub(crate) fn package(self) -> &'static str {
        match self {
            FsType::Ext4 => "e2fsprogs",
            FsType::Xfs => "xfsprogs",
            FsType::Btrfs => "btrfs-progs",
        }
    }
}

/// A directory shown at a second place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// Directory on one of the host's disks; made if missing.
    pub source: PathBuf,
    /// Existing directory of the machine that is covered inside the host.
    pub target: PathBuf,
}

/// What runs as pid 1 of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitKind {
    /// Our own: reaps, starts and kills, nothing else.
    #[default]
    Tiny,
    /// The machine's systemd, booted on an overlay of `/`.
    Systemd,
}

impl LabOptions {
    /// Checks names, counts and that nothing is named twice.
    pub(crate) fn check(&self) -> Result<()> {
        check_name("lab", &self.name, 20)?;
        let mut names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        names.push(plan::SWITCH);
        refuse_twice("host", &names)?;
        refuse_twice("network", &self.networks.iter().map(String::as_str).collect::<Vec<_>>())?;
        if self.networks.len() > plan::NETWORKS_MAX || self.hosts.len() > plan::HOSTS_MAX {
            return Err(Error::Invalid(format!(
                "a lab has at most {} networks and {} hosts",
                plan::NETWORKS_MAX,
                plan::HOSTS_MAX
            )));
        }
        for network in &self.networks {
            check_name("network", network, 8)?;
        }
        for host in &self.hosts {
            self.check_host(host)?;
        }
        if !self.binary.is_absolute() {
            return Err(Error::Invalid(format!(
                "the path of the binary, {}, must be absolute",
                self.binary.display()
            )));
        }
        Ok(())
    }

    fn check_host(&self, host: &HostSpec) -> Result<()> {
        check_name("host", &host.name, 15)?;
        for network in &self.networks {
            if plan::port(&host.name, network).len() > plan::INTERFACE_NAME_MAX {
                return Err(Error::Invalid(format!(
                    "host {} and network {network} make an interface name longer than {} \
                     characters; choose shorter names",
                    host.name,
                    plan::INTERFACE_NAME_MAX
                )));
            }
        }
        let disks: Vec<&str> = host.disks.iter().map(|disk| disk.name.as_str()).collect();
        refuse_twice("disk", &disks)?;
        for disk in &host.disks {
            check_name("disk", &disk.name, 20)?;
        }
        let known = |name: &String| self.networks.contains(name);
        match host.networks.iter().flatten().find(|name| !known(name)) {
            Some(name) => Err(Error::Invalid(format!(
                "host {} names the network {name}, which the lab does not have",
                host.name
            ))),
            None => Ok(()),
        }
    }
}

fn check_name(what: &str, name: &str, length_max: usize) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !name.is_empty()
        && name.len() <= length_max
        && !name.starts_with('-')
        && name.chars().all(plain);
    if good {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{name:?} cannot name a {what}: use 1 to {length_max} characters of a-z, 0-9 and -"
    )))
}

fn refuse_twice(what: &str, names: &[&str]) -> Result<()> {
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(Error::Invalid(format!("the {what} name {name} is used twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LabOptions {
        LabOptions {
            name: "one".into(),
            binary: "/bin/true".into(),
            networks: vec!["lan0".into()],
            hosts: vec![HostSpec::node("node1"), HostSpec::client("client")],
        }
    }

    #[test]
    fn a_plain_lab_is_accepted() {
        options().check().unwrap();
    }

    #[test]
    fn names_that_cannot_work_are_refused_with_the_rule() {
        let mut bad = options();
        bad.name = "../etc".into();
        assert!(bad.check().unwrap_err().to_string().contains("a-z, 0-9"));
        let mut bad = options();
        bad.hosts[1].name = "node1".into();
        assert_eq!(bad.check().unwrap_err().to_string(), "the host name node1 is used twice");
        let mut bad = options();
        bad.hosts[1].name = "a-long-client".into();
        assert!(bad.check().unwrap_err().to_string().contains("shorter names"));
        let mut bad = options();
        bad.hosts[1].networks = Some(vec!["wan".into()]);
        assert!(bad.check().unwrap_err().to_string().contains("does not have"));
    }
}
