//! Fingerprints of configuration, by which two nodes see whether they have the same.
//!
//! Taken of the effective values, so that comments, order of keys and spelled-out defaults make no
//! difference. They find mistakes, not forgeries: the hash is FNV-1a, 64 bits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use crate::NodeName;

use super::{
    Ack, Affinity, AfterDoubleCrash, Balance, CheckAction, CheckConfig, CheckKind, ClusterConfig,
    CommandConfig, Compression, Delivery, FailoverConfig, FailoverMode, FarmConfig, FenceConfig,
    InUse, Isolation, Keep, ModuleConfig, ModuleKind, Protocol, ReplicationConfig, ReplicationUse,
    Scripts, StopSignal, Vip, WatchdogConfig, Watched, WithoutWitness,
};

/// A fingerprint of each top-level key of a module's file, whether written or by default.
#[must_use]
pub fn digest(module: &ModuleConfig) -> BTreeMap<String, u64> {
    let ModuleConfig {
        name,
        kind,
        nodes,
        replicate,
        vips,
        services,
        commands,
        scripts,
        replication,
        failover,
        checks,
        farm,
    } = module;
    let hash = Fnv::new();
    let keys = [
        ("module", hash.text(name.as_str())),
        ("kind", hash.kind(*kind)),
        ("nodes", hash.list(nodes, |hash, node| hash.text(node.as_str()))),
        ("replicate", hash.list(replicate, |hash, path| hash.path(path))),
        ("vip", hash.list(vips, Fnv::vip)),
        ("services", hash.list(services, |hash, unit| hash.text(unit))),
        ("command", hash.list(commands, Fnv::command)),
        ("scripts", hash.scripts(scripts)),
        ("replication", hash.replication(replication)),
        ("failover", hash.failover(failover)),
        ("check", hash.list(checks, Fnv::check)),
    ];
    let farm = farm.iter().flat_map(|farm| hash.farm(farm));
    let keys = keys.into_iter().chain(farm);
    keys.map(|(key, hash)| (key.to_owned(), hash.finish())).collect()
}

/// A fingerprint of `cluster.toml`.
#[must_use]
pub fn cluster_digest(cluster: &ClusterConfig) -> u64 {
    let ClusterConfig {
        cluster: name,
        networks,
        nodes,
        witness,
        witness_fingerprint,
        isolation,
        fence,
        health,
        watchdog,
    } = cluster;
    let mut hash = Fnv::new()
        .text(name.as_str())
        .list(networks, |hash, network| {
            let replication = match network.replication {
                ReplicationUse::Preferred => "preferred",
                ReplicationUse::Allowed => "allowed",
                ReplicationUse::Never => "never",
            };
            hash.text(network.name.as_str()).text(replication)
        })
        .list(nodes, |hash, node| {
            let addresses: Vec<_> = node.addresses.iter().collect();
            hash.text(node.name.as_str()).list(&addresses, |hash, (network, address)| {
                hash.text(network.as_str()).address(**address)
            })
        });
    if let Some(witness) = witness {
        hash = hash.address(witness.ip()).number(witness.port().into());
    }
    if let Some(fingerprint) = witness_fingerprint {
        hash = hash.text(&fingerprint.to_string());
    }
    match isolation {
        // As before there was the key, so that nodes of both versions agree.
        Isolation::Gateway => {}
        Isolation::Landmarks(landmarks) => {
            hash = hash.text("ping").list(landmarks, |hash, ip| hash.address(*ip));
        }
        Isolation::Off => hash = hash.text("no ping"),
    }
    if let Some(FenceConfig { exec, timeout }) = fence {
        let exec = hash.text("fence").list(exec, |hash, word| hash.text(word));
        hash = exec.number(timeout.as_millis());
    }
    if let Some(health) = health {
        hash = hash.text("health").address(health.ip()).number(health.port().into());
    }
    if let Some(WatchdogConfig { device, timeout }) = watchdog {
        hash = hash.text("watchdog").path(device).number(timeout.as_millis());
    }
    hash.finish()
}

/// FNV-1a over values, each preceded by its length or of fixed length, so that no two different
/// sequences of values are the same sequence of bytes.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn finish(self) -> u64 {
        self.0
    }

    fn kind(self, kind: ModuleKind) -> Self {
        match kind {
            ModuleKind::Mirror => self.text("mirror"),
            ModuleKind::Farm => self.text("farm"),
            ModuleKind::Light => self.text("light"),
        }
    }

    fn path(self, path: &Path) -> Self {
        self.bytes(path.as_os_str().as_encoded_bytes())
    }

    fn vip(self, vip: &Vip) -> Self {
        let Vip { address, prefix, interface } = vip;
        self.address(*address).number((*prefix).into()).option(interface.as_deref())
    }

    fn scripts(self, scripts: &Scripts) -> Self {
        let Scripts { start, stop, before_resync } = scripts;
        let all = self.option(start.as_deref()).option(stop.as_deref());
        before_resync.iter().fold(all, |all, script| all.text(script))
    }

    fn replication(self, replication: &ReplicationConfig) -> Self {
        let ReplicationConfig {
            ack,
            stall_timeout,
            resync_rate,
            compression,
            encrypt,
            in_use,
            exclude,
        } = replication;
        let ack = match ack {
            Ack::Write => "write",
            Ack::Fsync => "fsync",
        };
        let compression = match compression {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
        };
        let in_use = match in_use {
            InUse::Refuse => "refuse",
            InUse::Allow => "allow",
        };
        let rate = resync_rate.map_or(0, u128::from);
        let all = self.text(ack).number(stall_timeout.as_millis()).number(rate);
        let all = all.text(compression).number((*encrypt).into()).text(in_use);
        exclude.iter().fold(all, |all, pattern| all.text(pattern))
    }

    fn failover(self, failover: &FailoverConfig) -> Self {
        let FailoverConfig {
            timeout,
            mode,
            prefer,
            without_witness: policy,
            after_double_crash,
            keep,
            max_restarts,
            restart_window,
        } = failover;
        let mode = match mode {
            FailoverMode::Automatic => "automatic",
            FailoverMode::Manual => "manual",
        };
        let policy = match policy {
            WithoutWitness::GoOn => "go-on",
            WithoutWitness::Wait => "wait",
        };
        let all = self
            .number(timeout.as_millis())
            .text(mode)
            .text(prefer.as_ref().map_or("", NodeName::as_str))
            .text(policy)
            .number((*max_restarts).into())
            .number(restart_window.as_millis());
        // Without either key as before there was one, so that nodes of both versions agree.
        let all = match after_double_crash {
            AfterDoubleCrash::Wait => all,
            AfterDoubleCrash::GoOn => all.text("after crash go-on"),
        };
        match keep {
            Keep::Manual => all,
            Keep::LongestServing => all.text("keep longest-serving"),
        }
    }

    /// The keys that only a farm has.
    fn farm(self, farm: &FarmConfig) -> [(&'static str, Self); 2] {
        let FarmConfig { delivery, pulse, timeout, weights, balance } = farm;
        let delivery = match delivery {
            Delivery::Directed => "directed",
            Delivery::Multicast => "multicast",
        };
        let weights: Vec<_> = weights.iter().collect();
        let pace = self.text(delivery).number(pulse.as_millis()).number(timeout.as_millis());
        let own = pace.list(&weights, |hash, (node, weight)| {
            hash.text(node.as_str()).number((**weight).into())
        });
        let balance = self.list(balance, |hash, rule| {
            let Balance { port, protocol, affinity } = rule;
            let protocol = match protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let affinity = match affinity {
                Affinity::ClientIp => "client-ip",
                Affinity::ClientIpPort => "client-ip-port",
            };
            hash.number((*port).into()).text(protocol).text(affinity)
        });
        [("farm", own), ("balance", balance)]
    }

    fn check(self, check: &CheckConfig) -> Self {
        let CheckConfig { name, kind, interval, timeout, grace, fail_after, action } = check;
        let action = match action {
            CheckAction::None => "none",
            CheckAction::Restart => "restart",
            CheckAction::Failover => "failover",
            CheckAction::Wait => "wait",
            CheckAction::Stop => "stop",
        };
        let all = self.text(name.as_str()).number(interval.as_millis());
        let all = all.number(timeout.as_millis()).number(grace.as_millis());
        let all = all.number((*fail_after).into()).text(action);
        match kind {
            CheckKind::Process(Watched::Command(name)) => all.text("command").text(name.as_str()),
            CheckKind::Process(Watched::Service(unit)) => all.text("service").text(unit),
            CheckKind::Process(Watched::PidFile(path)) => all.text("pid_file").path(path),
            CheckKind::Process(Watched::Program(program)) => all.text("program").text(program),
            CheckKind::Tcp(address) => {
                all.text("tcp").address(address.ip()).number(address.port().into())
            }
            CheckKind::Exec { run, user } => {
                let all = all.text("exec").list(run, |hash, word| hash.text(word));
                all.option(user.as_deref())
            }
        }
    }

    fn command(self, command: &CommandConfig) -> Self {
        let CommandConfig { name, run, user, stop_signal, stop_timeout } = command;
        let stop_signal = match stop_signal {
            StopSignal::Term => "TERM",
            StopSignal::Int => "INT",
            StopSignal::Quit => "QUIT",
        };
        self.text(name.as_str())
            .list(run, |hash, word| hash.text(word))
            .option(user.as_deref())
            .text(stop_signal)
            .number(stop_timeout.as_millis())
    }

    fn list<T>(self, items: &[T], add: impl Fn(Self, &T) -> Self) -> Self {
        let start = self.number(items.len() as u128);
        items.iter().fold(start, add)
    }

    fn option(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.number(1).text(text),
            None => self.number(0),
        }
    }

    fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as u128).raw(bytes)
    }

    fn number(self, number: u128) -> Self {
        self.raw(&number.to_le_bytes())
    }

    fn raw(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(self.0, step))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Source, parse_cluster, parse_module};
    use super::*;

    const CLUSTER: &str = r#"
cluster = "demo"
node = [{ name = "a", addresses = { lan0 = "10.0.0.1" } },
        { name = "b", addresses = { lan0 = "10.0.0.2" } }]
"#;

    fn check(left: &str, right: &str, expected: &[&str]) {
        let cluster = parse_cluster(&Source { file: "cluster.toml", text: CLUSTER }).unwrap();
        let of = |text| digest(&parse_module(&Source { file: "m.toml", text }, &cluster).unwrap());
        let (left, right) = (of(left), of(right));
        let differing: Vec<&str> = left
            .iter()
            .filter(|(key, value)| right.get(*key) != Some(*value))
            .map(|(key, _)| key.as_str())
            .collect();
        assert_eq!(differing, expected);
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(Fnv::new().raw(b"a").finish(), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn written_defaults_make_no_difference_and_changes_are_named() {
        let short = "module = 'm'\nkind = 'mirror'\nreplicate = ['/srv/a']\n";
        check(short, &format!("# why\n{short}nodes = ['a', 'b']\n[failover]\ntimeout = '5s'"), &[]);
        check(short, &format!("{short}[failover]\ntimeout = '3s'"), &["failover"]);
        check(short, &format!("{short}[replication]\nack = 'write'\nstall_timeout = '10s'"), &[]);
        for other in [
            "ack = 'fsync'",
            "stall_timeout = '9s'",
            "resync_rate = '1MB/s'",
            "compression = 'lz4'",
            "encrypt = false",
            "in_use = 'allow'",
            "exclude = ['*.tmp']",
        ] {
            check(short, &format!("{short}[replication]\n{other}"), &["replication"]);
        }
        for other in ["start = 'a'", "stop = 'a'", "before_resync = 'a'"] {
            check(short, &format!("{short}[scripts]\n{other}"), &["scripts"]);
        }
        check(short, &short.replace("/srv/a", "/srv/b"), &["replicate"]);
        for other in [
            "mode = 'manual'",
            "prefer = 'b'",
            "max_restarts = 2",
            "restart_window = '1h'",
            "without_witness = 'wait'",
            "keep = 'longest-serving'",
        ] {
            check(short, &format!("{short}[failover]\n{other}"), &["failover"]);
        }
        let tcp = format!("{short}[[check]]\nkind = 'tcp'\nport = 80\n");
        check(short, &tcp, &["check"]);
        check(&tcp, &format!("{tcp}address = '127.0.0.1'\nfail_after = 2\ntimeout = '5s'"), &[]);
        for other in [
            "name = 'web'",
            "interval = '1s'",
            "timeout = '1s'",
            "grace = '1s'",
            "fail_after = 3",
            "action = 'wait'",
            "address = '10.0.0.9'",
        ] {
            check(&tcp, &format!("{tcp}{other}"), &["check"]);
        }
        let exec = format!("{short}[[check]]\nkind = 'exec'\nname = 'x'\nrun = ['/bin/true']\n");
        check(&exec, &exec.replace("true", "false"), &["check"]);
        check(&exec, &format!("{exec}user = 'a'"), &["check"]);
        let command = format!("{short}[[command]]\nname = 'x'\nrun = ['/bin/true']\n");
        let watched = format!("{command}[[check]]\nkind = 'process'\ncommand = 'x'\n");
        check(&command, &watched, &[]);
        check(&watched, &watched.replace("command = 'x'", "program = 'x'"), &["check"]);
        check(
            short,
            &format!("{short}services = ['x']\n[[vip]]\naddress = '10.0.0.9/24'"),
            &["check", "services", "vip"],
        );
    }

    #[test]
    fn of_a_farm_each_own_key_makes_a_difference() {
        let short = "module = 'm'\nkind = 'farm'\n";
        check(short, &format!("{short}[farm]\npulse = '50ms'\nweights = {{ a = 100 }}"), &[]);
        for other in
            ["pulse = '40ms'", "timeout = '300ms'", "delivery = 'multicast'", "weights = { b = 1 }"]
        {
            check(short, &format!("{short}[farm]\n{other}"), &["farm"]);
        }
        let port = format!("{short}[[balance]]\nport = 80\n");
        check(short, &port, &["balance"]);
        check(&port, &format!("{port}protocol = 'tcp'\naffinity = 'client-ip-port'"), &[]);
        check(&port, &port.replace("80", "81"), &["balance"]);
        check(&port, &format!("{port}protocol = 'udp'"), &["balance"]);
        check(&port, &format!("{port}affinity = 'client-ip'"), &["balance"]);
    }

    #[test]
    fn a_cluster_with_another_address_has_another_fingerprint() {
        let of = |text: &str| {
            cluster_digest(&parse_cluster(&Source { file: "cluster.toml", text }).unwrap())
        };
        assert_eq!(of(CLUSTER), of(&format!("# a comment\n{CLUSTER}")));
        assert_ne!(of(CLUSTER), of(&CLUSTER.replace("10.0.0.2", "10.0.0.3")));
        let witness = format!("{CLUSTER}[witness]\naddress = '10.0.0.3'\n");
        assert_ne!(of(CLUSTER), of(&witness));
        let fingerprint = "0".repeat(64);
        assert_ne!(of(&witness), of(&format!("{witness}fingerprint = '{fingerprint}'")));
    }
}
