//! Nodes as namespaces on one machine: for the demo, integration tests, benchmarks and fault
//! injection. A host has its own network, mounts, pids, name and cgroups, a tiny init of ours or a
//! real systemd as pid 1, and its disks on loop devices; hosts are joined by bridges in a switch of
//! their own. What a lab does to the machine ends with its owner. Knows nothing of clusters.

mod boot;
mod cgroup;
pub mod compare;
mod disk;
pub mod enter;
mod error;
pub mod examiner;
mod fault;
mod host;
pub mod init;
pub mod interrupt;
mod lab;
pub mod ledger;
mod network;
mod options;
mod plan;
mod proc;
mod protocol;
mod state;
mod sys;
mod user;
pub mod web;

pub use error::{Error, Result};
pub use host::{Host, Process};
pub use lab::{HostInfo, Lab, LabInfo};
pub use options::{Bind, DISK_BYTES, Disk, FsType, HostSpec, InitKind, LabOptions};
pub use plan::{PREFIX, SWITCH, address, virtual_address};
pub use proc::ProcessId;
pub use protocol::{Exit, SpawnSpec};
pub use state::base_dir;
