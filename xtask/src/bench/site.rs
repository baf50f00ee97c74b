//! Where the benchmarks run: a lab of two nodes with everything that is compared set up beside each
//! other, on a disk and in memory. It measures nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::burst::ARCHIVE;

const LAB: &str = "bench";
pub(super) const INSIDE: &str = "/run/lab/evenkeel";
pub(super) const ROOT: &str = "/mnt/state";
pub(super) const NODES: [&str; 2] = ["node1", "node2"];
pub(super) const WITNESS: &str = "client";
const ECHO_PORT: u16 = 7700;
/// What the names end with of modules whose links are encrypted.
const TLS: &str = "-tls";
const KEY_FILES: [&str; 4] = ["ca.pem", "node.pem", "node.key", "cluster.key"];
/// How long a pair may take to become protected.
const PROTECTED_TIMEOUT: &str = "60s";
/// How long a mount may take to appear, and a daemon to answer.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Contender {
    /// The directory itself.
    Native,
    /// Our own mount of it, unreplicated.
    Fuse,
    /// Replicated, each call acknowledged by both nodes.
    Write,
    /// Replicated, each sync acknowledged by both nodes.
    Fsync,
    /// As `Write`, over encrypted links.
    WriteTls,
    /// As `Fsync`, over encrypted links.
    FsyncTls,
    /// GlusterFS with two copies.
    Gluster,
}

impl Contender {
    pub(super) const ALL: [Contender; 7] = [
        Contender::Native,
        Contender::Fuse,
        Contender::Write,
        Contender::Fsync,
        Contender::WriteTls,
        Contender::FsyncTls,
        Contender::Gluster,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Native => "native",
            Contender::Fuse => "fuse",
            Contender::Write => "write",
            Contender::Fsync => "fsync",
            Contender::WriteTls => "write-tls",
            Contender::FsyncTls => "fsync-tls",
            Contender::Gluster => "gluster",
        }
    }
}

/// What the data lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ground {
    Disk,
    Memory,
}

impl Ground {
    pub(super) fn name(self) -> &'static str {
        match self {
            Ground::Disk => "ext4",
            Ground::Memory => "tmpfs",
        }
    }

    fn base(self) -> &'static str {
        match self {
            Ground::Disk => "/srv",
            Ground::Memory => "/mnt/memory",
        }
    }
}

/// The lab while it stands; dropping it removes everything.
pub(super) struct Site {
    binary: PathBuf,
    task: PathBuf,
    peers: PathBuf,
    children: Vec<Child>,
    gluster: Option<String>,
    contenders: Vec<Contender>,
}

impl Site {
    /// Builds the lab and sets up all contenders that this machine has.
    ///
    /// # Errors
    /// Something of it does not start; the text says what.
    pub(super) fn build(root: &Path, tls: bool) -> Result<Site, String> {
        let binary = root.join("target/release/evenkeel");
        if !binary.exists() {
            let path = binary.display();
            return Err(format!("{path} is missing; build it: cargo build --release"));
        }
        let task = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
        let mut site = Site {
            binary,
            task,
            peers: root.join("bench/peers"),
            children: Vec::new(),
            gluster: None,
            contenders: vec![Contender::Native, Contender::Fuse, Contender::Write],
        };
        site.evenkeel(&["lab", "up", "--name", LAB])?;
        if site.knows_fsync()? {
            site.contenders.push(Contender::Fsync);
        } else {
            eprintln!("left out: this version has no `ack = \"fsync\"`");
        }
        if tls {
            site.contenders.extend([Contender::WriteTls, Contender::FsyncTls]);
        }
        site.give_keys()?;
        site.start_cluster()?;
        site.start_mounts()?;
        site.start_echo()?;
        match site.start_gluster() {
            Ok(directory) => {
                site.gluster = Some(directory);
                site.contenders.push(Contender::Gluster);
            }
            Err(error) => eprintln!("left out: GlusterFS: {error}"),
        }
        site.burst("tree", ARCHIVE, true)?;
        for contender in site.contenders.clone() {
            for ground in [Ground::Disk, Ground::Memory] {
                if let Some(directory) = site.directory(contender, ground) {
                    site.burst("prepare", &directory, contender != Contender::Gluster)?;
                }
            }
        }
        Ok(site)
    }

    pub(super) fn contenders(&self) -> &[Contender] {
        &self.contenders
    }

    /// Where a contender keeps its data on a ground; none where it cannot.
    pub(super) fn directory(&self, contender: Contender, ground: Ground) -> Option<String> {
        match (contender, ground) {
            (Contender::Gluster, Ground::Disk) => self.gluster.clone(),
            (Contender::Gluster, Ground::Memory) => None,
            _ => Some(format!("{}/{}", ground.base(), contender.name())),
        }
    }

    /// Runs a workload for a contender and answers what it printed.
    pub(super) fn run(
        &self,
        contender: Contender,
        ground: Ground,
        workload: &str,
    ) -> Result<Option<String>, String> {
        let Some(directory) = self.directory(contender, ground) else { return Ok(None) };
        self.burst(workload, &directory, contender != Contender::Gluster).map(Some)
    }

    /// Measures the link between the nodes.
    pub(super) fn link(&self) -> Result<String, String> {
        self.burst("link", &format!("{}:{ECHO_PORT}", address(1)), true)
    }

    /// Runs a shell's commands on the first node as the user of the database.
    pub(super) fn as_database(&self, script: &str) -> Result<String, String> {
        let words = ["lab", "exec", LAB, NODES[0], "--user", "postgres", "--", "sh", "-ec", script];
        self.evenkeel(&words)
    }

    /// Runs a shell's commands on the first node.
    pub(super) fn shell(&self, script: &str) -> Result<String, String> {
        self.on(NODES[0], &["sh", "-ec", script])
    }

    fn burst(&self, workload: &str, place: &str, inside: bool) -> Result<String, String> {
        let task = self.task.display().to_string();
        let words = [task.as_str(), "bench-burst", workload, place];
        if inside {
            self.on(NODES[0], &words)
        } else {
            output(Command::new(&task).args(&words[1..]))
        }
    }

    fn on(&self, host: &str, words: &[&str]) -> Result<String, String> {
        self.evenkeel(&[&["lab", "exec", LAB, host, "--"], words].concat())
    }

    fn evenkeel(&self, words: &[&str]) -> Result<String, String> {
        output(Command::new(&self.binary).args(words))
    }

    /// A program that runs on a host until the end.
    fn spawn(&mut self, host: &str, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        command.args(["lab", "exec", LAB, host, "--"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot start {words:?}: {error}"))?;
        self.children.push(child);
        Ok(())
    }

    /// Whether a module may ask for it; told by a configuration that is written for the question.
    fn knows_fsync(&self) -> Result<bool, String> {
        self.configure(NODES[0], &[Contender::Fsync], "")?;
        Ok(self.on(NODES[0], &[INSIDE, "--root", ROOT, "check"]).is_ok())
    }

    fn configure(
        &self,
        host: &str,
        modules: &[Contender],
        fingerprint: &str,
    ) -> Result<(), String> {
        let nodes = NODES.iter().enumerate().map(|(number, name)| {
            let address = address(number);
            format!("[[node]]\nname = \"{name}\"\naddresses = {{ lan0 = \"{address}\" }}\n")
        });
        let nodes: String = nodes.collect();
        let cluster = format!(
            "cluster = \"bench\"\n{nodes}[witness]\naddress = \"{}\"\n{fingerprint}\n",
            address(2)
        );
        let mut script = format!("cd {ROOT}; mkdir -p etc/evenkeel/modules; cd etc/evenkeel\n");
        script += &format!("cat > cluster.toml <<'END'\n{cluster}END\nrm -f modules/*\n");
        for module in modules {
            let name = module.name();
            let encrypt = name.ends_with(TLS);
            let ack = name.trim_end_matches(TLS);
            let [disk, memory] =
                [Ground::Disk, Ground::Memory].map(|g| format!("{}/{name}", g.base()));
            script += &format!(
                "mkdir -p {disk} {memory}\ncat > modules/{name}.toml <<'END'\nmodule = \"{name}\"\n\
                 kind = \"mirror\"\nreplicate = [\"{disk}\", \"{memory}\"]\n\
                 [replication]\nack = \"{ack}\"\nencrypt = {encrypt}\nEND\n"
            );
        }
        self.on(host, &["sh", "-ec", &script]).map(drop)
    }

    /// Has the witness know the cluster; the line of the configuration by which that knows it.
    fn enrol(&self) -> Result<String, String> {
        let authority = self.on(NODES[0], &["cat", &format!("{ROOT}/etc/evenkeel/keys/ca.pem")])?;
        let script = format!(
            "mkdir -p /tmp/witness; cat > /tmp/ca.pem <<'END'\n{authority}\nEND\n\
             {INSIDE} witness add /tmp/ca.pem --directory /tmp/witness > /dev/null\n\
             {INSIDE} witness show --directory /tmp/witness | grep '^fingerprint = '"
        );
        self.on(WITNESS, &["sh", "-ec", &script])
    }

    /// Gives the nodes keys, with which each module can be encrypted or not.
    fn give_keys(&self) -> Result<(), String> {
        let directory = std::env::temp_dir().join(format!("evenkeel-bench-{}", std::process::id()));
        let shown = directory.display().to_string();
        self.evenkeel(&[&["lab", "keys", &shown][..], &NODES].concat())?;
        let given = NODES.iter().try_for_each(|node| {
            let place = format!("{ROOT}/etc/evenkeel/keys");
            let mut script = format!("umask 077; mkdir -p {place}; cd {place}\n");
            for name in KEY_FILES {
                let path = directory.join(node).join(name);
                let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
                script += &format!("cat > {name} <<'END'\n{text}END\n");
            }
            self.on(node, &["sh", "-ec", &script]).map(drop)
        });
        // They are of no use any more.
        let _ = fs::remove_dir_all(&directory);
        given
    }

    fn start_cluster(&mut self) -> Result<(), String> {
        let modules: Vec<Contender> = self.contenders.iter().copied().filter(is_module).collect();
        let listen = format!("{}:7623", address(2));
        let fingerprint = self.enrol()?;
        let witness = [INSIDE, "witness", "--listen", &listen, "--directory", "/tmp/witness"];
        self.spawn(WITNESS, &witness)?;
        for node in NODES {
            self.configure(node, &modules, &fingerprint)?;
            self.spawn(node, &[INSIDE, "--root", ROOT, "daemon"])?;
        }
        for node in NODES {
            self.until("an answer of the daemon", &[INSIDE, "--root", ROOT, "status"], node)?;
        }
        for module in modules.iter().map(|module| module.name()) {
            self.on(NODES[0], &[INSIDE, "--root", ROOT, "start", module])?;
            let wait = ["wait", module, "--for", "protected", "--timeout", PROTECTED_TIMEOUT];
            self.on(NODES[0], &[&[INSIDE, "--root", ROOT], &wait[..]].concat())?;
        }
        Ok(())
    }

    fn start_mounts(&mut self) -> Result<(), String> {
        for ground in [Ground::Disk, Ground::Memory] {
            let base = ground.base();
            self.shell(&format!("mkdir -p {base}/native {base}/fuse"))?;
            let directory = format!("{base}/fuse");
            // As many threads as a replicator has.
            let words = [INSIDE, "mount", "--threads", "2", &directory, &directory];
            self.spawn(NODES[0], &words)?;
            self.until("the mount", &["mountpoint", "-q", &directory], NODES[0])?;
        }
        Ok(())
    }

    fn start_echo(&mut self) -> Result<(), String> {
        let (task, address) = (self.task.display().to_string(), address(1));
        let place = format!("{address}:{ECHO_PORT}");
        self.spawn(NODES[1], &[&task, "bench-burst", "link-echo", &place])?;
        let reach = format!("exec 3<>/dev/tcp/{address}/{ECHO_PORT}");
        self.until("the echo", &["bash", "-c", &reach], NODES[0])
    }

    /// GlusterFS has hosts of its own; answers where it is mounted.
    fn start_gluster(&self) -> Result<String, String> {
        if !Path::new("/usr/sbin/glusterd").exists() {
            return Err("it is not installed; apt-get install glusterfs-server".to_owned());
        }
        let script = self.peers.join("gluster.sh");
        // What a run left behind that was killed would be in the way.
        quietly(Command::new(&script).arg("down"));
        // Else it confirms writes that no server has yet, which is not what they are compared with.
        quietly(Command::new(&script).arg("up").env("GLOPTS", "performance.write-behind=off"));
        Ok(output(Command::new(&script).arg("mount-dir"))?.trim().to_owned())
    }

    fn until(&self, what: &str, words: &[&str], host: &str) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match self.on(host, words) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => {
                    return Err(format!("{what} on {host} does not come: {error}"));
                }
                // Nothing tells when it is there.
                Err(_) => std::thread::sleep(LOOK_PAUSE),
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.gluster.is_some() {
            quietly(Command::new(self.peers.join("gluster.sh")).arg("down"));
        }
        let down = self.evenkeel(&["lab", "down", LAB]);
        if let Err(error) = down {
            eprintln!("{error}");
        }
        for child in &mut self.children {
            // Their host is gone, and so are they.
            let _ = child.wait();
        }
        let _ = fs::remove_file(ARCHIVE);
    }
}

fn is_module(contender: &Contender) -> bool {
    matches!(
        contender,
        Contender::Write | Contender::Fsync | Contender::WriteTls | Contender::FsyncTls
    )
}

/// Address of a host of the lab, by its position.
pub(super) fn address(position: usize) -> String {
    format!("10.77.0.{}", 11 + position)
}

/// Runs a script whose daemons keep its outputs open for longer than it lasts.
fn quietly(command: &mut Command) {
    // Whether it worked shows in what is there afterwards.
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

pub(super) fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| format!("cannot start {shown}: {error}"))?;
    let Output { status, stdout, stderr } =
        child.wait_with_output().map_err(|error| format!("{shown}: {error}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said: Vec<String> = BufReader::new(&stderr[..]).lines().map_while(Result::ok).collect();
    Err(format!("{shown}: {status}: {}", said.join("; ")))
}
