//! What the nodes of a test run: the built-in ledger, or the machine's PostgreSQL, with clients
//! that remember what was acknowledged.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lab::ledger::{Client, ClientError, LedgerClient, Psql, Workload, Writer};
use lab::{Disk, Host, SpawnSpec};

use super::{CLIENT, Cluster, INSIDE, PATIENCE};

const LEDGER_PORT: u16 = 7000;
const POSTGRESQL_PORT: u16 = 5432;
const POSTGRESQL_DATA: &str = "/srv/pg/data";
/// Pause before pgbench is started again while nobody serves.
const BENCH_PAUSE: Duration = Duration::from_millis(200);
/// How long all numbers of the ledger may take to be read.
const IDS_TIMEOUT: Duration = Duration::from_secs(20);

/// An application and its module.
pub struct Application {
    pub module: &'static str,
    /// Its replicated directory, below `/srv`.
    pub directory: &'static str,
    /// The module's file.
    pub configuration: String,
    /// Disks that each node has besides its usual ones.
    pub disks: Vec<Disk>,
    /// Whether the nodes boot a real systemd, which runs the daemon.
    pub systemd: bool,
    /// Whether the cluster has keys, so that links are encrypted.
    pub keys: bool,
    /// Puts the first data onto a node.
    pub prepare: fn(&Host),
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ledger,
    Postgresql,
}

/// The ledger, listening on every address of its node; `more` is appended to the module's file.
pub fn ledger(more: &str) -> Application {
    let command = format!(
        "[[command]]\nname = \"ledger\"\nrun = [\"{INSIDE}\", \"ledger\", \"--data\", \
         \"/srv/ledger\", \"--listen\", \"0.0.0.0:{LEDGER_PORT}\"]\n"
    );
    Application {
        module: "ledger",
        directory: "ledger",
        configuration: head("ledger", "ledger") + &command + more,
        prepare: |node| seed(&node.path("/srv/ledger").unwrap()),
        disks: Vec::new(),
        systemd: false,
        keys: false,
        kind: Kind::Ledger,
    }
}

/// PostgreSQL with its data directory replicated.
pub fn postgresql(more: &str) -> Application {
    let command = format!(
        "[[command]]\nname = \"postgresql\"\nuser = \"postgres\"\nrun = [\"{}\", \"-D\", \
         \"{POSTGRESQL_DATA}\"]\nstop_signal = \"INT\"\n",
        program("postgres").display()
    );
    Application {
        module: "postgresql",
        directory: "pg",
        configuration: head("postgresql", "pg") + &command + more,
        prepare: init_database,
        disks: Vec::new(),
        systemd: false,
        keys: false,
        kind: Kind::Postgresql,
    }
}

impl Application {
    /// On nodes that boot a real systemd.
    pub fn below_systemd(self) -> Application {
        Application { systemd: true, ..self }
    }

    /// In a cluster that has keys.
    pub fn with_keys(self) -> Application {
        Application { keys: true, ..self }
    }
}

impl Cluster {
    /// Does what is done once after the first start.
    pub fn set_up(&self) {
        if self.application.kind == Kind::Postgresql {
            self.until("PostgreSQL accepts connections", PATIENCE, || {
                self.inside_client(|| psql().connect()?.create_table()).is_ok()
            });
            let host = vip().ip().to_string();
            let initialise = ["pgbench", "-i", "-q", "-s", "1", "-h", &host];
            succeed(
                &self.host(CLIENT),
                &[&initialise[..], &["-U", "postgres", "postgres"]].concat(),
            );
        }
    }

    /// A client that commits without pause through the virtual address, from number `first` on.
    pub fn workload(&self, first: u64) -> Workload {
        let namespace = self.host(CLIENT).netns().unwrap();
        match self.application.kind {
            Kind::Ledger => Workload::ledger(vip_port(LEDGER_PORT), first, Some(namespace)),
            Kind::Postgresql => {
                let psql = Psql { namespace: Some(Arc::new(namespace)), ..psql() };
                let connect = move || -> Result<Box<dyn Client>, ClientError> {
                    Ok(Box::new(psql.connect()?))
                };
                Workload::start(first, None, Box::new(connect))
            }
        }
        .unwrap()
    }

    /// A client that offers new transactions without pause, from number `first` on, through the
    /// virtual address, or to a node at its own.
    pub fn writer(&self, node: Option<&str>, first: u64) -> Writer {
        let address = node.map(|node| self.host(node).address(super::NETWORK).unwrap());
        let address = SocketAddr::new(address.unwrap_or(vip().ip()), LEDGER_PORT);
        Writer::start(address, first, self.host(CLIENT).netns().unwrap()).unwrap()
    }

    /// Waits until something is acknowledged that was not yet when this was called.
    pub fn progress(&self, workload: &Workload) {
        let progressed = workload.wait_for_progress(Instant::now(), PATIENCE);
        assert!(progressed, "nothing is acknowledged any more: {:?}", workload.last_error());
    }

    /// The transactions that the application has, read through the virtual address.
    pub fn ids(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        self.until("the application's numbers", PATIENCE, || {
            let ids = match self.application.kind {
                Kind::Ledger => self.inside_client(|| ledger_at(vip_port(LEDGER_PORT))?.ids()),
                Kind::Postgresql => self.inside_client(|| psql().connect()?.ids()),
            };
            match ids {
                Ok(ids) => {
                    found = ids;
                    true
                }
                Err(error) => {
                    eprintln!("asking again, for {error}");
                    false
                }
            }
        });
        found
    }

    /// Nothing that was acknowledged may be missing.
    pub fn nothing_lost(&self, acknowledged: &[u64]) {
        let present = self.ids();
        let lost: Vec<&u64> = acknowledged.iter().filter(|id| !present.contains(id)).collect();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
        assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    }

    /// The ledger's books balance.
    pub fn books_balance(&self) {
        let ask = || ledger_at(vip_port(LEDGER_PORT))?.balance();
        assert_eq!(self.inside_client(ask).unwrap(), 0, "money was made or lost");
    }

    /// Asks the ledger of one node, by the node's own address, from the client's host.
    pub fn transfer_at(&self, node: &str, id: u64) -> Result<(), ClientError> {
        let address = self.host(node).address(super::NETWORK).unwrap();
        self.inside_client(|| ledger_at(SocketAddr::new(address, LEDGER_PORT))?.transfer(id))
    }

    fn inside_client<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, ClientError> + Send,
    ) -> Result<T, ClientError> {
        let namespace = self.host(CLIENT).netns().unwrap();
        net::namespace::enter(namespace.as_fd(), work).unwrap()
    }

    /// pgbench's own sums agree, and so do the checksums of all pages of both stopped replicas.
    pub fn database_is_sound(&self) {
        let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = sum(bbalance) AND \
                    sum(bbalance) = (SELECT sum(tbalance) FROM pgbench_tellers) AND sum(bbalance) \
                    = (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
                    (SELECT count(*) > 0 FROM pgbench_history) FROM pgbench_branches";
        let host = vip().ip().to_string();
        let words = ["psql", "-qAtX", "-h", &host, "-U", "postgres", "-c", sums, "postgres"];
        let answer = succeed(&self.host(CLIENT), &words);
        assert_eq!(answer.trim(), "t|t", "the sums of pgbench agree and it did something");
    }

    /// Waits until pgbench has changed something.
    pub fn bench_gets_on(&self) {
        let host = vip().ip().to_string();
        let some = "SELECT count(*) > 0 FROM pgbench_history";
        let words = ["psql", "-qAtX", "-h", &host, "-U", "postgres", "-c", some, "postgres"];
        self.until("pgbench gets on", PATIENCE, || {
            self.host(CLIENT).run(words).unwrap().stdout.trim_ascii() == b"t"
        });
    }

    /// Every page of a stopped database has the checksum that it should have.
    pub fn pages_are_sound(&self, node: &str) {
        let program = program("pg_checksums");
        succeed(&self.host(node), &[program.to_str().unwrap(), "--check", "-D", POSTGRESQL_DATA]);
    }
}

/// pgbench on the client's host, started again whenever a failover has ended it.
pub struct Bench {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Bench {
    pub fn start(cluster: &Cluster) -> Bench {
        let (stop, stopped) = channel();
        let client = cluster.host(CLIENT);
        Bench { stop, thread: thread::spawn(move || bench(&client, &stopped)) }
    }

    pub fn finish(self) {
        let _ = self.stop.send(());
        self.thread.join().unwrap();
    }
}

fn bench(client: &Host, stopped: &Receiver<()>) {
    let host = vip().ip().to_string();
    let words = ["pgbench", "-n", "-c", "4", "-T", "3600", "-h", &host, "-U", "postgres"];
    loop {
        let spec = SpawnSpec::new(words.into_iter().chain(["postgres"])).log("pgbench.log");
        // Without the host the lab has gone, and with it whoever could ask for more.
        let Ok(bench) = client.spawn(spec) else { return };
        while bench.is_alive() {
            match stopped.recv_timeout(BENCH_PAUSE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    // It may have ended by itself just now.
                    let _ = bench.kill(15);
                    let _ = bench.wait();
                    return;
                }
            }
        }
        if stopped.recv_timeout(BENCH_PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn head(module: &str, directory: &str) -> String {
    format!(
        "module = \"{module}\"\nkind = \"mirror\"\nreplicate = [\"/srv/{directory}\"]\n\
         [[vip]]\naddress = \"{}/{}\"\n",
        vip().ip(),
        lab::PREFIX
    )
}

fn vip() -> SocketAddr {
    vip_port(POSTGRESQL_PORT)
}

fn vip_port(port: u16) -> SocketAddr {
    SocketAddr::new(lab::virtual_address(0, 0), port)
}

fn ledger_at(address: SocketAddr) -> Result<LedgerClient, ClientError> {
    LedgerClient::connect_within(address, Duration::from_secs(1), IDS_TIMEOUT)
}

fn psql() -> Psql {
    Psql {
        host: vip().ip(),
        port: POSTGRESQL_PORT,
        user: "postgres".into(),
        database: "postgres".into(),
        namespace: None,
    }
}

/// Runs something on a host that has to succeed.
pub fn succeed(host: &Host, words: &[&str]) -> String {
    let output = host.run(words).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} on {}: {}: {said}", host.name(), output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn init_database(node: &Host) {
    let own = ["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", POSTGRESQL_DATA];
    succeed(node, &own);
    let initdb = program("initdb").display().to_string();
    let words = [&initdb, "-k", "-D", POSTGRESQL_DATA, "-A", "trust", "-U", "postgres"];
    let output = node.command_as("postgres", words).unwrap().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let append = |name: &str, text: &str| {
        let path = node.path(format!("{POSTGRESQL_DATA}/{name}")).unwrap();
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append(
        "postgresql.conf",
        "listen_addresses = '*'\nunix_socket_directories = '/tmp'\nshared_buffers = '32MB'\n\
         synchronous_commit = on\n",
    );
    append("pg_hba.conf", "host all all 10.77.0.0/24 trust\n");
}

/// A program of the newest PostgreSQL of this machine.
fn program(name: &str) -> PathBuf {
    let missing = "PostgreSQL is missing; install it with: apt-get install postgresql";
    let entries = fs::read_dir("/usr/lib/postgresql").expect(missing);
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("bin/postgres").exists())
        .max_by_key(|path| version(path))
        .expect(missing);
    newest.join("bin").join(name)
}

/// Files of all kinds beside the ledger's database, so that there is something to compare.
fn seed(root: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let statements = root.join("statements");
    fs::create_dir_all(&statements).unwrap();
    for number in 0..100_u32 {
        let line = format!("{number};transfer;account {}\n", number % 10);
        fs::write(statements.join(format!("{number}.csv")), line.repeat(number as usize)).unwrap();
    }
    let big: Vec<u8> = (0..8_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(root.join("scan.img"), big).unwrap();
    let private = root.join("private");
    fs::write(&private, "0\n").unwrap();
    std::os::unix::fs::chown(&private, Some(1000), Some(100)).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o4750)).unwrap();
    rustix::fs::setxattr(&private, "user.origin", b"bank", rustix::fs::XattrFlags::empty())
        .unwrap();
    symlink("statements/1.csv", root.join("first")).unwrap();
    fs::hard_link(statements.join("2.csv"), root.join("second.csv")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
}
