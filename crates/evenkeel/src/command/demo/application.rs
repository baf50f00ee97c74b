//! What the nodes of the demo run: its configuration, its first data, its clients.
//!
//! The ledger needs nothing installed; PostgreSQL is the machine's own package. Both are driven by
//! the same workload.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lab::Host;
use lab::ledger::{Client, ClientError, LedgerClient, Psql, Workload};

use super::{Failure, Result};

/// Applications that the demo knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum App {
    /// A small ledger over SQLite that is part of this binary.
    Ledger,
    /// A real PostgreSQL; needs the Debian package of that name.
    Postgresql,
}

/// An application that can be run here.
#[derive(Debug, Clone)]
pub(super) struct Application {
    app: App,
    /// Directory of PostgreSQL's programs; empty for the ledger.
    programs: PathBuf,
}

const LEDGER_PORT: u16 = 7000;
const POSTGRESQL_PORT: u16 = 5432;
/// Where Debian puts PostgreSQL, one directory for each version.
const POSTGRESQL_DIR: &str = "/usr/lib/postgresql";
/// How long an answer of the ledger may take when its numbers are read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Documents beside the ledger, so that the first sync has something to show.
const STATEMENTS: usize = 300;
const SCANS: usize = 24;
const SCAN_BYTES: u64 = 8 << 20;

impl App {
    /// Its name on the command line and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            App::Ledger => "ledger",
            App::Postgresql => "postgresql",
        }
    }
}

impl Application {
    /// Looks for what it needs.
    pub(super) fn find(app: App) -> Result<Application> {
        let programs = match app {
            App::Ledger => PathBuf::new(),
            App::Postgresql => postgresql_programs()?,
        };
        Ok(Application { app, programs })
    }

    /// How it is called at the start of a sentence.
    pub(super) fn title(&self) -> &'static str {
        match self.app {
            App::Ledger => "A ledger",
            App::Postgresql => "PostgreSQL",
        }
    }

    /// How it is called within a sentence.
    pub(super) fn spoken(&self) -> &'static str {
        match self.app {
            App::Ledger => "the ledger",
            App::Postgresql => "PostgreSQL",
        }
    }

    /// Name of its module.
    pub(super) fn module(&self) -> &'static str {
        self.app.name()
    }

    /// Its replicated directory, below the root of the nodes' data disk.
    pub(super) fn directory(&self) -> &'static str {
        match self.app {
            App::Ledger => "ledger",
            App::Postgresql => "pg",
        }
    }

    /// The module's configuration.
    pub(super) fn configuration(&self) -> String {
        let (module, directory, vip) = (self.module(), self.directory(), vip());
        let head = format!(
            "module    = \"{module}\"\nkind      = \"mirror\"\nreplicate = [\"/srv/{directory}\"]\n\
             \n[[vip]]\naddress = \"{vip}/{}\"\n\n[[command]]\nname = \"{module}\"\n",
            lab::PREFIX
        );
        let command = match self.app {
            App::Ledger => format!(
                "run  = [\"/run/lab/evenkeel\", \"ledger\", \"--data\", \"/srv/ledger\", \
                 \"--listen\", \"{vip}:{LEDGER_PORT}\"]\n"
            ),
            App::Postgresql => format!(
                "user = \"postgres\"\nrun  = [\"{}\", \"-D\", \"/srv/pg/data\"]\n\
                 stop_signal = \"INT\"\n",
                self.programs.join("postgres").display()
            ),
        };
        head + &command
    }

    /// Puts its first data onto a node.
    pub(super) fn prepare(&self, node: &Host) -> Result<()> {
        match self.app {
            App::Ledger => {
                let root = node.path("/srv/ledger")?;
                seed(&root).map_err(Failure::io("cannot write the first documents"))
            }
            App::Postgresql => self.init_database(node),
        }
    }

    /// Does what is done once, when it answers for the first time.
    pub(super) fn set_up(&self, client: &Host) -> Result<std::result::Result<(), ClientError>> {
        match self.app {
            App::Ledger => inside(client, || ledger().map(drop)),
            App::Postgresql => {
                inside(client, || psql().connect().and_then(|mut psql| psql.create_table()))
            }
        }
    }

    /// Starts committing through the virtual address.
    pub(super) fn workload(&self, client: &Host) -> Result<Workload> {
        let namespace = client.netns()?;
        let workload = match self.app {
            App::Ledger => Workload::ledger(ledger_address(), 1, Some(namespace)),
            App::Postgresql => {
                let psql = Psql { namespace: Some(Arc::new(namespace)), ..psql() };
                let connect = move || -> std::result::Result<Box<dyn Client>, ClientError> {
                    Ok(Box::new(psql.connect()?))
                };
                Workload::start(1, None, Box::new(connect))
            }
        };
        workload.map_err(Failure::io("cannot start the client"))
    }

    /// The transactions that it has.
    pub(super) fn ids(
        &self,
        client: &Host,
    ) -> Result<std::result::Result<BTreeSet<u64>, ClientError>> {
        match self.app {
            App::Ledger => inside(client, || ledger().and_then(|mut ledger| ledger.ids())),
            App::Postgresql => inside(client, || psql().connect().and_then(|mut psql| psql.ids())),
        }
    }

    fn init_database(&self, node: &Host) -> Result<()> {
        let data = "/srv/pg/data";
        let mkdir = ["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", data];
        finish("make the data directory", node.command(mkdir)?)?;
        let initdb = self.programs.join("initdb").display().to_string();
        let initdb = [initdb.as_str(), "-D", data, "-A", "trust", "-U", "postgres"];
        finish("make the database", node.command_as("postgres", initdb)?)?;
        let append = |name: &str, text: &str| {
            let path = node.path(format!("{data}/{name}"))?;
            let write = || {
                use std::io::Write;
                File::options().append(true).open(&path)?.write_all(text.as_bytes())
            };
            write().map_err(Failure::io(&format!("cannot write {name}")))
        };
        append(
            "postgresql.conf",
            "listen_addresses = '*'\nunix_socket_directories = '/tmp'\nshared_buffers = '32MB'\n",
        )?;
        append("pg_hba.conf", "host all all 10.77.0.0/24 trust\n")
    }
}

/// The address that clients use, whichever node serves.
pub(super) fn vip() -> IpAddr {
    lab::virtual_address(0, 0)
}

fn ledger_address() -> SocketAddr {
    SocketAddr::new(vip(), LEDGER_PORT)
}

fn ledger() -> std::result::Result<LedgerClient, ClientError> {
    LedgerClient::connect_within(ledger_address(), Duration::from_secs(1), ANSWER_TIMEOUT)
}

fn psql() -> Psql {
    Psql {
        host: vip(),
        port: POSTGRESQL_PORT,
        user: "postgres".into(),
        database: "postgres".into(),
        namespace: None,
    }
}

/// Does something in a host's network.
fn inside<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = host.netns()?;
    net::namespace::enter(namespace.as_fd(), work)
        .map_err(|error| Failure::Other(format!("cannot act on {}: {error}", host.name())))
}

fn finish(what: &str, mut command: std::process::Command) -> Result<()> {
    let failed = format!("cannot {what}");
    let output = command.output().map_err(Failure::io(&failed))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Other(format!("{failed}: {}", said.trim())))
}

fn postgresql_programs() -> Result<PathBuf> {
    let missing = |package: &str| {
        Failure::Unfit(format!(
            "PostgreSQL is not installed completely; install it with: apt-get install {package}"
        ))
    };
    let entries = fs::read_dir(POSTGRESQL_DIR).map_err(|_| missing("postgresql"))?;
    let version = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let newest = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/postgres").exists() && path.join("bin/initdb").exists())
        .max_by_key(|path| version(path))
        .ok_or_else(|| missing("postgresql"))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|directory| directory.join("psql").exists()) {
        return Err(missing("postgresql-client"));
    }
    Ok(newest.join("bin"))
}

/// Statements, scans, a symbolic link and a second name: what an office keeps beside its books.
fn seed(root: &Path) -> std::io::Result<()> {
    let (statements, scans) = (root.join("statements"), root.join("scans"));
    fs::create_dir_all(&statements)?;
    fs::create_dir_all(&scans)?;
    for number in 0..STATEMENTS {
        let line = format!("{number};transfer;account {};{} EUR\n", number % 10, number * 7);
        fs::write(statements.join(format!("{number:03}.csv")), line.repeat(1 + number % 200))?;
    }
    let mut random = File::open("/dev/urandom")?;
    for number in 0..SCANS {
        let mut scan = File::create(scans.join(format!("{number}.img")))?;
        std::io::copy(&mut (&mut random).take(SCAN_BYTES), &mut scan)?;
    }
    symlink("scans/0.img", root.join("newest-scan"))?;
    fs::hard_link(statements.join("000.csv"), root.join("first-statement.csv"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_are_accepted() {
        for app in [App::Ledger, App::Postgresql] {
            let application = Application { app, programs: "/usr/lib/postgresql/15/bin".into() };
            let text = application.configuration();
            assert!(text.contains(&format!("module    = \"{}\"", app.name())));
            assert!(text.contains("address = \"10.77.0.200/24\""), "{text}");
        }
    }
}
