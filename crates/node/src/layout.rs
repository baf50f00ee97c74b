//! Where a node keeps its files.
//!
//! `--root DIR` moves all of it below another directory, which is how several nodes live on one
//! machine in the lab.

use std::path::{Path, PathBuf};

use model::ModuleName;

/// Name of the folder of quarantines, beside the activity log.
pub(crate) const QUARANTINE: &str = "quarantine";

/// Where a node keeps its files.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`; `/` in production.
    #[must_use]
    pub fn new(root: &Path) -> Layout {
        Layout { root: root.to_owned() }
    }

    /// The directory that everything lies below.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration.
    #[must_use]
    pub fn configuration_directory(&self) -> PathBuf {
        self.root.join("etc/evenkeel")
    }

    /// The cluster's configuration.
    #[must_use]
    pub fn cluster_file(&self) -> PathBuf {
        self.configuration_directory().join("cluster.toml")
    }

    /// The directory of the modules' configurations.
    #[must_use]
    pub fn module_directory(&self) -> PathBuf {
        self.configuration_directory().join("modules")
    }

    /// The cluster's keys, once it has any.
    #[must_use]
    pub fn keys_directory(&self) -> PathBuf {
        self.configuration_directory().join("keys")
    }

    /// What must survive a reboot.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.root.join("var/lib/evenkeel")
    }

    /// What a reboot may take.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.root.join("run/evenkeel")
    }

    /// The command line's way to the daemon.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_directory().join("control.sock")
    }

    /// The configurations that were applied.
    #[must_use]
    pub fn configurations_directory(&self) -> PathBuf {
        self.state_directory().join("configurations")
    }

    /// The events of this node.
    #[must_use]
    pub fn event_file(&self) -> PathBuf {
        self.state_directory().join("events.jsonl")
    }

    /// The gateways that have answered a ping in this boot.
    #[must_use]
    pub fn gateways_file(&self) -> PathBuf {
        self.run_directory().join("gateways.json")
    }

    /// The watchdog that a daemon of this boot has started, for one that follows.
    #[must_use]
    pub fn watchdog_file(&self) -> PathBuf {
        self.run_directory().join("watchdog.json")
    }

    /// The recordings of what this node decided.
    #[must_use]
    pub fn recording_directory(&self) -> PathBuf {
        self.state_directory().join("recordings")
    }

    /// The record of a module.
    #[must_use]
    pub fn record_file(&self, module: &ModuleName) -> PathBuf {
        self.state_directory().join(format!("modules/{module}/record.json"))
    }

    /// The activity log of a module.
    #[must_use]
    pub fn activity_file(&self, module: &ModuleName) -> PathBuf {
        self.state_directory().join(format!("modules/{module}/activity.log"))
    }

    /// What copies of a module held that were given up, each in a folder named after its time.
    #[must_use]
    pub fn quarantine_directory(&self, module: &ModuleName) -> PathBuf {
        self.activity_file(module).with_file_name(QUARANTINE)
    }

    /// When this node took up the newest epochs of a module, for people.
    #[must_use]
    pub fn epochs_file(&self, module: &ModuleName) -> PathBuf {
        self.activity_file(module).with_file_name("epochs.json")
    }

    /// What a module's markers are being changed to.
    #[must_use]
    pub fn marking_file(&self, module: &ModuleName) -> PathBuf {
        self.activity_file(module).with_file_name("marking.json")
    }

    /// Until when what a dead replicator had left covered a module's directories. It is there from
    /// when they are plain again until the next replicator knows.
    #[must_use]
    pub fn covered_file(&self, module: &ModuleName) -> PathBuf {
        self.state_directory().join(format!("modules/{module}/covered.json"))
    }

    /// What the daemon remembers of a running module, for a daemon that follows it in the same
    /// boot.
    #[must_use]
    pub fn running_file(&self, module: &ModuleName) -> PathBuf {
        self.run_directory().join(format!("{module}.running.json"))
    }

    /// What the kernel was told of a farm, for a daemon that follows in the same boot.
    #[must_use]
    pub fn farm_file(&self, module: &ModuleName) -> PathBuf {
        self.run_directory().join(format!("{module}.farm.json"))
    }

    /// The programs of a module's application, for a daemon that follows in the same boot.
    #[must_use]
    pub fn programs_file(&self, module: &ModuleName) -> PathBuf {
        self.run_directory().join(format!("{module}.programs.json"))
    }

    /// The daemon's way to a replicator.
    #[must_use]
    pub fn replicator_socket(&self, module: &ModuleName) -> PathBuf {
        self.run_directory().join(format!("{module}.replicator.sock"))
    }

    /// Where a module's replicator and application write what they say.
    #[must_use]
    pub fn log_file(&self, module: &ModuleName, what: &str) -> PathBuf {
        self.state_directory().join(format!("modules/{module}/{what}.log"))
    }
}
