//! `cargo xtask setup`: installs what the tests need and this machine lacks.
//!
//! Debian and its relatives only. Nothing is upgraded, removed or configured, but for one thing:
//! Debian's PostgreSQL packages would start a server at once, and no test uses that one.

use std::fs;
use std::path::Path;

use crate::run;

/// A Debian package, and what needs it.
struct Package {
    name: &'static str,
    reason: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "btrfs-progs", reason: "a file system whose quotas the tests exceed" },
    Package { name: "e2fsprogs", reason: "mkfs.ext4: each node of the lab has its own disk" },
    Package { name: "fio", reason: "reads and writes that verify themselves, on a mirror" },
    Package { name: "iproute2", reason: "ss: ends connections under the nodes' hands" },
    Package { name: "libfaketime", reason: "nodes whose clocks on the wall are hours apart" },
    Package { name: "nftables", reason: "filters of others, which a farm must leave alone" },
    Package { name: "postgresql", reason: "the database whose node the tests kill" },
    Package { name: "postgresql-contrib", reason: "pgbench: the load while that happens" },
    Package { name: "systemd", reason: "nodes of the lab that boot a real systemd" },
    Package { name: "dbus", reason: "how services are started on such nodes" },
];

/// Where Debian's PostgreSQL packages read whether to create and start a server.
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/evenkeel.conf";

/// Installs the missing packages.
///
/// # Errors
/// What is missing and how to install it by hand.
pub fn setup() -> Result<(), String> {
    let here = Path::new("/");
    let installed =
        run::output(here, "dpkg-query", &["-W", "-f", "${Package} ${db:Status-Status}\\n"])
            .map_err(|error| {
                let names: Vec<&str> = PACKAGES.iter().map(|package| package.name).collect();
                format!(
                    "this machine has no Debian packages ({error}); install what the tests need by \
                 hand: {}",
                    names.join(" ")
                )
            })?;
    let missing = missing(&installed);
    if missing.is_empty() {
        println!("setup: every package that the tests need is installed");
    } else {
        install(here, &missing)?;
    }
    check_fuse()
}

/// The packages that are not installed, given the lines of `dpkg-query`.
fn missing(installed: &str) -> Vec<&'static Package> {
    let has = |name: &str| installed.lines().any(|line| line == format!("{name} installed"));
    PACKAGES.iter().filter(|package| !has(package.name)).collect()
}

fn install(here: &Path, missing: &[&Package]) -> Result<(), String> {
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    for package in missing {
        println!("setup: {} is missing ({})", package.name, package.reason);
    }
    if run::output(here, "id", &["-u"])?.trim() != "0" {
        return Err(format!(
            "only root can install packages: sudo apt-get update && \
             sudo apt-get install --yes --no-install-recommends {}",
            names.join(" ")
        ));
    }
    if names.contains(&"postgresql") {
        keep_server_from_starting()?;
    }
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    run::run(here, &quiet, "apt-get", &["update", "--quiet"])?;
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(names);
    run::run(here, &quiet, "apt-get", &arguments)
}

fn keep_server_from_starting() -> Result<(), String> {
    let path = Path::new(CREATE_CLUSTER);
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, "create_main_cluster = false\n"))
        .map_err(|error| format!("cannot write {CREATE_CLUSTER}: {error}"))
}

fn check_fuse() -> Result<(), String> {
    if Path::new("/dev/fuse").exists() {
        return Ok(());
    }
    // Harmless where it fails: the next look tells.
    let _ = run::output(Path::new("/"), "modprobe", &["fuse"]);
    if Path::new("/dev/fuse").exists() {
        return Ok(());
    }
    Err("there is no /dev/fuse: load the kernel module `fuse`, or give the container the device \
         (docker run --device /dev/fuse --cap-add SYS_ADMIN)"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_installed_is_missing() {
        let lines = "btrfs-progs installed\ne2fsprogs installed\nfio installed\n\
                     iproute2 installed\nlibfaketime installed\nnftables installed\n\
                     postgresql config-files\nsystemd installed\ndbus installed\n\
                     postgresql-contrib-9.6 installed\n";
        let names: Vec<&str> = missing(lines).iter().map(|package| package.name).collect();
        assert_eq!(names, ["postgresql", "postgresql-contrib"]);
    }
}
