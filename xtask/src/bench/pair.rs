//! A cluster of two nodes in a lab with one module, whose second node can go and come back. What is
//! done on it, and what of that is measured, is decided elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::site::{INSIDE, NODES, ROOT, WITNESS, address, output};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(5400);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The cluster; dropping it removes it.
pub(super) struct Pair {
    binary: PathBuf,
    task: PathBuf,
    lab: &'static str,
    module: &'static str,
    children: Vec<Child>,
}

/// The disk of each node.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairDisk {
    /// Its size; it takes no more than what is written.
    pub(super) gib: usize,
    /// A configuration for mke2fs, from the root of the repository, in place of the machine's.
    pub(super) mke2fs: Option<&'static str>,
}

impl Pair {
    /// Builds the lab and configures the module; nothing is started yet.
    ///
    /// # Errors
    /// The release binary is missing, or the lab does not come up.
    pub(super) fn build(
        root: &Path,
        lab: &'static str,
        module: &'static str,
        directory: &str,
        disk: PairDisk,
    ) -> Result<Pair, String> {
        let binary = root.join("target/release/evenkeel");
        if !binary.exists() {
            let path = binary.display();
            return Err(format!("{path} is missing; build it: cargo build --release"));
        }
        let task = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
        let pair = Pair { binary, task, lab, module, children: Vec::new() };
        let gib = disk.gib.to_string();
        let mut up = Command::new(&pair.binary);
        up.args(["lab", "up", "--name", lab, "--disk-gib", &gib]);
        if let Some(config) = disk.mke2fs {
            // The lab's mkfs gets the environment of the command.
            up.env("MKE2FS_CONFIG", root.join(config));
        }
        output(&mut up)?;
        for node in NODES {
            pair.configure(node, directory)?;
        }
        Ok(pair)
    }

    /// Adds to the module's file on both nodes, before anything is started.
    pub(super) fn configure_more(&self, more: &str) -> Result<(), String> {
        let path = format!("{ROOT}/etc/evenkeel/modules/{}.toml", self.module);
        let script = format!("cat >> {path} <<'END'\n{more}END\n");
        NODES.iter().try_for_each(|node| self.shell(node, &script).map(drop))
    }

    /// The path of this program.
    pub(super) fn task(&self) -> String {
        self.task.display().to_string()
    }

    /// Runs a shell's commands on a node and answers what they print.
    pub(super) fn shell(&self, node: &str, script: &str) -> Result<String, String> {
        self.evenkeel(&["lab", "exec", self.lab, node, "--", "sh", "-ec", script])
    }

    /// Starts everything and waits until the pair is protected.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let listen = format!("{}:7623", address(2));
        self.shell(WITNESS, "mkdir -p /tmp/witness")?;
        self.spawn(
            WITNESS,
            &[INSIDE, "witness", "--open", "--listen", &listen, "--directory", "/tmp/witness"],
        )?;
        for node in NODES {
            self.start_daemon(node)?;
        }
        self.start_module()
    }

    /// Stops the module on both nodes and starts it again.
    pub(super) fn restart(&self) -> Result<(), String> {
        self.command(&["stop", self.module])?;
        self.start_module()
    }

    fn start_module(&self) -> Result<(), String> {
        // The command waits for a minute, in which a large tree is not brought up to date.
        match self.command(&["start", self.module]) {
            Err(error) if !error.contains("it goes on trying") => Err(error),
            Ok(_) | Err(_) => self.wait_for("protected"),
        }
    }

    /// Kills the second node; the first goes on alone.
    pub(super) fn kill_second(&self) -> Result<(), String> {
        self.evenkeel(&["lab", "kill", self.lab, NODES[1]])?;
        self.wait_for("alone")
    }

    /// Boots the second node and waits until the pair is protected again.
    pub(super) fn return_second(&mut self) -> Result<(), String> {
        self.boot_second()?;
        self.rejoin_second()
    }

    /// Boots the second node; nothing is started on it yet.
    pub(super) fn boot_second(&self) -> Result<(), String> {
        self.evenkeel(&["lab", "start", self.lab, NODES[1]]).map(drop)
    }

    /// Starts the second node's daemon and waits until the pair is protected again.
    pub(super) fn rejoin_second(&mut self) -> Result<(), String> {
        self.start_daemon(NODES[1])?;
        self.wait_for("protected")
    }

    /// Whether the module comes to a state within so many seconds.
    pub(super) fn comes_to(&self, state: &str, seconds: u64) -> bool {
        let timeout = format!("{seconds}s");
        self.command(&["wait", self.module, "--for", state, "--timeout", &timeout]).is_ok()
    }

    /// How the last resync went.
    pub(super) fn progress(&self) -> Result<Value, String> {
        let text = self.command(&["status", "--json"])?;
        let status: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let found = find(&status, "progress").cloned();
        found.ok_or_else(|| "the status tells no progress".to_owned())
    }

    fn configure(&self, node: &str, directory: &str) -> Result<(), String> {
        let nodes = NODES.iter().enumerate().map(|(number, name)| {
            let address = address(number);
            format!("[[node]]\nname = \"{name}\"\naddresses = {{ lan0 = \"{address}\" }}\n")
        });
        let nodes: String = nodes.collect();
        let witness = address(2);
        let module = self.module;
        let script = format!(
            "mkdir -p {directory} {ROOT}/etc/evenkeel/modules; cd {ROOT}/etc/evenkeel\n\
             cat > cluster.toml <<'END'\ncluster = \"bench\"\n{nodes}[witness]\n\
             address = \"{witness}\"\nEND\n\
             cat > modules/{module}.toml <<'END'\nmodule = \"{module}\"\nkind = \"mirror\"\n\
             replicate = [\"{directory}\"]\nEND\n"
        );
        self.shell(node, &script).map(drop)
    }

    fn start_daemon(&mut self, node: &str) -> Result<(), String> {
        self.spawn(node, &[INSIDE, "--root", ROOT, "daemon"])?;
        let start = Instant::now();
        let script = format!("{INSIDE} --root {ROOT} status");
        while let Err(error) = self.shell(node, &script) {
            if start.elapsed() > PATIENCE {
                return Err(error);
            }
            // Nothing tells when it answers.
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }

    fn wait_for(&self, state: &str) -> Result<(), String> {
        let timeout = format!("{}s", PATIENCE.as_secs());
        self.command(&["wait", self.module, "--for", state, "--timeout", &timeout]).map(drop)
    }

    fn command(&self, words: &[&str]) -> Result<String, String> {
        let first = ["lab", "exec", self.lab, NODES[0], "--", INSIDE, "--root", ROOT];
        self.evenkeel(&[&first[..], words].concat())
    }

    fn evenkeel(&self, words: &[&str]) -> Result<String, String> {
        output(Command::new(&self.binary).args(words))
    }

    fn spawn(&mut self, host: &str, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        command.args(["lab", "exec", self.lab, host, "--"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot start {words:?}: {error}"))?;
        self.children.push(child);
        Ok(())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Err(error) = self.evenkeel(&["lab", "down", self.lab]) {
            eprintln!("{error}");
        }
        for child in &mut self.children {
            // Their host is gone, and so are they.
            let _ = child.wait();
        }
    }
}

/// The first value under a key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => {
            map.get(key).or_else(|| map.values().find_map(|value| find(value, key)))
        }
        Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
