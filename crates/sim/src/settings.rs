//! The configuration that follows from the world's settings, where it does not lie in files.

use std::collections::BTreeMap;
use std::time::Duration;

use model::config::{
    ClusterConfig, Compression, FailoverConfig, FenceConfig, InUse, Isolation, ModuleConfig,
    ModuleKind, NodeConfig, ReplicationConfig, Scripts,
};

use crate::host::Host;
use crate::names::node_name;
use crate::network::LANDMARK;
use crate::world::{World, shop};

impl World {
    pub(crate) fn cluster_config(&self) -> ClusterConfig {
        let node = |host: &Host| NodeConfig { name: host.name.clone(), addresses: BTreeMap::new() };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        ClusterConfig {
            cluster: shop(),
            networks: Vec::new(),
            nodes: self.hosts.iter().map(node).collect(),
            witness: self.has_witness.then_some(address),
            witness_fingerprint: None,
            isolation: if self.landmark {
                Isolation::Landmarks(vec![LANDMARK])
            } else {
                Isolation::Off
            },
            fence: self.fence.map(|timeout| FenceConfig { exec: Vec::new(), timeout }),
            health: None,
            watchdog: None,
        }
    }

    pub(crate) fn module_config(&self) -> ModuleConfig {
        if let Some(config) = &self.config {
            return config.clone();
        }
        ModuleConfig {
            name: shop(),
            kind: ModuleKind::Mirror,
            nodes: self.hosts.iter().map(|h| h.name.clone()).collect(),
            replicate: Vec::new(),
            vips: Vec::new(),
            services: Vec::new(),
            commands: Vec::new(),
            scripts: Scripts {
                before_resync: self.script.map(|_| "keep".to_owned()),
                ..Scripts::default()
            },
            replication: ReplicationConfig {
                ack: self.ack,
                stall_timeout: Duration::from_secs(10),
                resync_rate: None,
                compression: Compression::None,
                encrypt: true,
                in_use: InUse::Refuse,
                exclude: Vec::new(),
            },
            failover: FailoverConfig {
                timeout: Duration::from_secs(2),
                mode: self.mode,
                prefer: self.preferred.map(node_name),
                without_witness: self.policy,
                after_double_crash: self.after_crash,
                keep: self.keep,
                max_restarts: 3,
                restart_window: Duration::from_secs(24 * 3600),
            },
            checks: self.checked.clone(),
            farm: None,
        }
    }
}
