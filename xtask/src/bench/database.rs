//! PostgreSQL as a workload: a data directory for each contender, copied from one that is made
//! once, and `pgbench` against a server that runs only for the length of a burst.

use super::figures::Burst;
use super::site::{Contender, Ground, Site};

const PORT: u16 = 5499;
/// Seconds of a burst.
const SECONDS: u32 = 4;
const SCALE: u32 = 4;
/// Small, so that several data directories fit the disk of a node.
const SETTINGS: &str = "listen_addresses = ''\nunix_socket_directories = '/tmp'\n\
    shared_buffers = '64MB'\nmax_wal_size = '64MB'\nmin_wal_size = '32MB'\n\
    synchronous_commit = on\nautovacuum = off\n";

/// How many clients `pgbench` has, and on what.
pub(super) const RUNS: [(&str, u32, Ground); 2] =
    [("pgbench-c1", 1, Ground::Memory), ("pgbench-c4", 4, Ground::Disk)];

/// Makes the data directories of all contenders of the lab.
///
/// # Errors
/// PostgreSQL is missing or fails.
pub(super) fn prepare(site: &Site) -> Result<(), String> {
    let bin = programs()?;
    let first = "/mnt/memory/pg";
    site.shell(&format!("rm -rf {first}; install -d -o postgres -g postgres -m 700 {first}"))?;
    site.as_database(&format!(
        "{bin}/initdb -D {first} -A trust -U postgres >/dev/null; \
         printf '%s' \"{SETTINGS}\" >> {first}/postgresql.conf; {} \
         pgbench -i -q -s {SCALE} -h /tmp -p {PORT} -U postgres postgres 2>/dev/null; {}",
        start(&bin, first),
        stop(&bin, first)
    ))?;
    for (_, _, ground) in RUNS {
        for contender in site.contenders().iter().filter(|contender| runs(**contender)) {
            if let Some(directory) = site.directory(*contender, ground) {
                site.shell(&format!("cp -a {first} {directory}/pg"))?;
            }
        }
    }
    Ok(())
}

/// One burst: transactions a second.
pub(super) fn burst(
    site: &Site,
    contender: Contender,
    ground: Ground,
    clients: u32,
) -> Result<Option<Burst>, String> {
    let Some(directory) = site.directory(contender, ground).filter(|_| runs(contender)) else {
        return Ok(None);
    };
    let (bin, data) = (programs()?, format!("{directory}/pg"));
    let said = site.as_database(&format!(
        "{} pgbench -n -c {clients} -T {SECONDS} -h /tmp -p {PORT} -U postgres postgres; {}",
        start(&bin, &data),
        stop(&bin, &data)
    ))?;
    let rate = said.lines().find_map(|line| {
        let rest = line.strip_prefix("tps = ")?;
        rest.split(' ').next()?.parse().ok()
    });
    let rate = rate.ok_or_else(|| format!("pgbench shows no rate: {said}"))?;
    Ok(Some(Burst { middle: rate, tenth: rate }))
}

/// GlusterFS has hosts of its own, in which no server of ours runs.
fn runs(contender: Contender) -> bool {
    contender != Contender::Gluster
}

fn start(bin: &str, data: &str) -> String {
    format!("{bin}/pg_ctl -D {data} -o '-p {PORT}' -l /tmp/bench-pg.log -w start >/dev/null;")
}

fn stop(bin: &str, data: &str) -> String {
    format!("{bin}/pg_ctl -D {data} -m fast -w stop >/dev/null")
}

/// The directory of the newest PostgreSQL's programs.
fn programs() -> Result<String, String> {
    let missing = "PostgreSQL is missing; install it: apt-get install postgresql".to_owned();
    let entries = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| missing.clone())?;
    let version = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let newest = entries.filter_map(|entry| version(entry.ok()?)).max();
    newest.map(|version| format!("/usr/lib/postgresql/{version}/bin")).ok_or(missing)
}
