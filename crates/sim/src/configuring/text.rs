//! The files of a configuration: as the world's settings make them, as stories edit them, and what
//! they say.
//!
//! Each key has a line of its own, so that an edit replaces one line. What the lines mean is read
//! by the code that reads them in production.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::configuration::Version;
use model::ModuleName;
use model::config::{
    self, Ack, CLUSTER_FILE, CheckAction, ClusterConfig, Content, FailoverMode, Files, Keep,
    ModuleConfig, ModuleKind, Source, Stand, WithoutWitness,
};

use crate::light::{self, web};
use crate::world::{World, shop};

const SHOP: &str = "modules/shop.toml";
const WEB: &str = "modules/web.toml";
/// Where the witness is; one that is reached by other means than addresses.
const WITNESS: &str = "witness.address = \"127.0.0.1\"";

/// What a daemon runs with.
#[derive(Debug, Clone)]
pub(crate) struct Parsed {
    pub(crate) stand: Stand,
    pub(crate) files: Files,
    pub(crate) cluster: ClusterConfig,
    pub(crate) cluster_digest: u64,
    pub(crate) modules: BTreeMap<ModuleName, (ModuleConfig, BTreeMap<String, u64>)>,
}

impl Parsed {
    /// Reads a version.
    ///
    /// # Errors
    /// Its mistakes.
    pub(crate) fn of(version: &Version) -> Result<Parsed, String> {
        let (cluster, modules) = read(&version.files)?;
        let digests = |module: ModuleConfig| {
            let digest = config::digest(&module);
            (module.name.clone(), (module, digest))
        };
        Ok(Parsed {
            stand: version.stand(),
            files: version.files.clone(),
            cluster_digest: config::cluster_digest(&cluster),
            cluster,
            modules: modules.into_iter().map(digests).collect(),
        })
    }

    pub(crate) fn module(&self, name: &ModuleName) -> Option<&ModuleConfig> {
        self.modules.get(name).map(|(module, _)| module)
    }

    /// How long a daemon may stand still before it sends no more heartbeats.
    pub(crate) fn wedged_after(&self) -> Option<Duration> {
        let mirrors = self.modules.values().filter(|(m, _)| m.kind == ModuleKind::Mirror);
        mirrors.map(|(module, _)| module.failover.timeout / 2).min()
    }
}

/// What files say.
///
/// # Errors
/// Their mistakes.
pub(crate) fn read(files: &Files) -> Result<(ClusterConfig, Vec<ModuleConfig>), String> {
    let text = files.text(CLUSTER_FILE).unwrap_or_default();
    let source = Source { file: CLUSTER_FILE, text };
    let cluster = config::parse_cluster(&source).map_err(|wrong| wrong.to_string())?;
    let mut modules = Vec::new();
    for (file, text) in files.module_files() {
        let source = Source { file, text };
        let module = config::parse_module(&source, &cluster).map_err(|wrong| wrong.to_string())?;
        modules.push((source, module));
    }
    let pairs: Vec<_> = modules.iter().map(|(source, module)| (source, module)).collect();
    config::check_together(&pairs).map_err(|wrong| wrong.to_string())?;
    Ok((cluster, modules.into_iter().map(|(_, module)| module).collect()))
}

/// The world's settings as files.
pub(crate) fn of_world(world: &World) -> Files {
    let mut cluster = vec![
        "cluster = \"lab\"".to_owned(),
        "node = [{ name = \"node1\", addresses = { lan0 = \"10.0.0.1\" } }, \
         { name = \"node2\", addresses = { lan0 = \"10.0.0.2\" } }]"
            .to_owned(),
    ];
    cluster.extend(world.has_witness.then(|| WITNESS.to_owned()));
    let landmark = if world.landmark { "\"10.0.0.254\"" } else { "" };
    cluster.push(format!("isolation.ping = [{landmark}]"));
    let fence = "fence.exec = [\"/bin/false\"]".to_owned();
    cluster.extend(world.fence.is_some().then_some(fence));
    let synced = world.ack == Ack::Fsync;
    let go_on = world.policy == WithoutWitness::GoOn;
    let mut shop = vec![
        "module = \"shop\"".to_owned(),
        "kind = \"mirror\"".to_owned(),
        "replicate = [\"/srv/shop\"]".to_owned(),
        "failover.timeout = \"2s\"".to_owned(),
        format!("failover.without_witness = \"{}\"", if go_on { "go-on" } else { "wait" }),
    ];
    let longest = "failover.keep = \"longest-serving\"".to_owned();
    shop.extend((world.keep == Keep::LongestServing).then_some(longest));
    shop.extend(synced.then(|| "replication.ack = \"fsync\"".to_owned()));
    if world.mode == FailoverMode::Manual {
        shop.push("failover.mode = \"manual\"".to_owned());
    }
    shop.extend(world.preferred.map(|i| format!("failover.prefer = \"node{}\"", i + 1)));
    shop.extend(world.script.map(|_| "scripts.before_resync = \"keep\"".to_owned()));
    let checks = world.checked.iter().map(|check| one(check.name.as_str(), action(check.action)));
    let checks: Vec<String> = checks.collect();
    shop.push(format!("check = [{}]", checks.join(", ")));
    let mut files = Files::default();
    put(&mut files, CLUSTER_FILE, &cluster);
    put(&mut files, SHOP, &shop);
    if world.hosts[0].light.is_some() {
        put(&mut files, WEB, &light_file());
    }
    files
}

fn light_file() -> Vec<String> {
    let checks: Vec<String> =
        light::CHECKS.iter().map(|(name, action)| one(name, action)).collect();
    vec![
        format!("module = \"{}\"", web()),
        "kind = \"light\"".to_owned(),
        "scripts.start = \"begin\"".to_owned(),
        format!("check = [{}]", checks.join(", ")),
    ]
}

fn put(files: &mut Files, path: &str, lines: &[String]) {
    let content = Content { text: lines.join("\n") + "\n", executable: false };
    files.0.insert(path.to_owned(), content);
}

fn one(name: &str, action: &str) -> String {
    format!(
        "{{ name = \"{name}\", kind = \"tcp\", port = 1, action = \"{action}\", fail_after = 1, \
         grace = \"0s\" }}"
    )
}

fn action(action: CheckAction) -> &'static str {
    match action {
        CheckAction::None => "none",
        CheckAction::Restart => "restart",
        CheckAction::Failover => "failover",
        CheckAction::Wait => "wait",
        CheckAction::Stop => "stop",
    }
}

/// Edits files as a story says.
///
/// # Errors
/// The words say nothing.
pub(crate) fn edit(files: &mut Files, words: &[&str]) -> Result<(), String> {
    match words {
        ["timeout", time] => set(files, SHOP, "failover.timeout", Some(&quoted(time))),
        ["restarts", most] => {
            set(files, SHOP, "failover.max_restarts", Some(most));
            set(files, WEB, "failover.max_restarts", Some(most));
        }
        ["mode", mode] => set(files, SHOP, "failover.mode", Some(&quoted(mode))),
        ["prefer", "nobody"] => set(files, SHOP, "failover.prefer", None),
        ["prefer", node] => set(files, SHOP, "failover.prefer", Some(&quoted(node))),
        ["script", "on"] => set(files, SHOP, "scripts.before_resync", Some("\"keep\"")),
        ["script", "off"] => set(files, SHOP, "scripts.before_resync", None),
        ["ack", ack] => set(files, SHOP, "replication.ack", Some(&quoted(ack))),
        ["vip", address] => {
            set(files, SHOP, "vip", Some(&format!("[{{ address = \"{address}/24\" }}]")));
        }
        ["check", name, "gone"] => set_check(files, name, None),
        ["check", name, action] => set_check(files, name, Some(action)),
        ["light", "on"] => put(files, WEB, &light_file()),
        ["light", "off"] => {
            files.0.remove(WEB);
        }
        ["witness", "on"] => {
            set(files, CLUSTER_FILE, "witness.address", Some("\"127.0.0.1\""));
        }
        ["witness", "off"] => set(files, CLUSTER_FILE, "witness.address", None),
        ["comment", text] => set(files, SHOP, "#", Some(text)),
        other => return Err(format!("nothing is called `{}`", other.join(" "))),
    }
    Ok(())
}

fn quoted(word: &str) -> String {
    format!("\"{word}\"")
}

/// Has a file say this of a key, if the file is there.
fn set(files: &mut Files, path: &str, key: &str, value: Option<&str>) {
    let Some(content) = files.0.get_mut(path) else { return };
    let begin = format!("{key} = ");
    let others = content.text.lines().filter(|line| !line.starts_with(&begin));
    let line = value.map(|value| format!("{begin}{value}"));
    let lines: Vec<String> = others.map(str::to_owned).chain(line).collect();
    content.text = lines.join("\n") + "\n";
}

fn set_check(files: &mut Files, name: &str, action: Option<&str>) {
    let text = files.text(SHOP).unwrap_or_default();
    let all = text.lines().find_map(|line| line.strip_prefix("check = ")).unwrap_or("[]");
    let named = format!("name = \"{name}\",");
    let all = all.trim_matches(['[', ']']).split_inclusive('}');
    let others = all.map(|check| check.trim_start_matches([',', ' ']));
    let others = others.filter(|check| !check.is_empty() && !check.contains(&named));
    let new = action.map(|action| one(name, action));
    let checks: Vec<String> = others.map(str::to_owned).chain(new).collect();
    set(files, SHOP, "check", Some(&format!("[{}]", checks.join(", "))));
}

/// Whether the mirror's configurations in use differ in what it has to be stopped for.
pub(crate) fn differ_in_rules(one: &Parsed, other: &Parsed) -> bool {
    one.stand != other.stand
        && config::to_stop(&config::changes(&one.files, &other.files)).contains(&shop())
}
