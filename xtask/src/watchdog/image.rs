//! What the guest boots with: Debian's kernel, the modules that the node needs, busybox, and the
//! binary with its libraries, all of it in one archive that the kernel unpacks into memory.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::run;

/// Packages that the machine needs for it.
const PACKAGES: [&str; 3] = ["binutils", "busybox-static", "qemu-system-x86"];
/// Which names the newest kernel.
const KERNEL: &str = "linux-image-amd64";
/// Modules of the kernel, by the place of their sources.
const MODULES: [&str; 4] =
    ["fs/fuse/fuse", "drivers/watchdog/watchdog", "drivers/watchdog/i6300esb", "drivers/net/dummy"];

/// The first process of the guest.
const INIT: &str = include_str!("init.sh");

/// What qemu is given.
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) archive: PathBuf,
    /// Where the guests' consoles are kept.
    pub(super) folder: PathBuf,
}

/// Makes it, below the directory of build results.
pub(super) fn make(root: &Path) -> Result<Image, String> {
    install()?;
    let target = env::var("CARGO_TARGET_DIR").map_or_else(|_| root.join("target"), PathBuf::from);
    let folder = target.join("guest");
    fs::create_dir_all(&folder).map_err(|error| wrong(&folder, &error))?;
    let system = kernel(&folder)?;
    run::run(root, &[], "cargo", &["build", "--quiet", "--package", "evenkeel"])?;
    let binary = folder.join("evenkeel");
    let (built, stripped) = (shown(&target.join("debug/evenkeel")), shown(&binary));
    run::run(root, &[], "strip", &["-o", &stripped, &built])?;
    let mut archive = Archive::default();
    for folder in
        ["bin", "sbin", "dev", "proc", "sys", "modules", "etc", "var", "run", "srv", "tmp"]
    {
        archive.folder(folder);
    }
    archive.file("init", INIT.as_bytes(), 0o755);
    archive.add("evenkeel", &binary)?;
    for name in ["busybox", "sh", "mount"] {
        archive.add(&format!("bin/{name}"), Path::new("/bin/busybox"))?;
    }
    for library in libraries(&shown(&binary))? {
        archive.add(library.trim_start_matches('/'), Path::new(&library))?;
    }
    let modules = single(&system.join("lib/modules"))?.join("kernel");
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.add(&format!("modules/{name}.ko"), &modules.join(format!("{module}.ko")))?;
    }
    let path = folder.join("initramfs");
    fs::write(&path, archive.end()).map_err(|error| wrong(&path, &error))?;
    let boot = fs::read_dir(system.join("boot")).map_err(|error| wrong(&system, &error))?;
    let names = boot.flatten().map(|entry| entry.path());
    let kernel = { names }.find(|path| shown(path).contains("/vmlinuz-"));
    let kernel = kernel.ok_or_else(|| format!("no kernel in {}", system.display()))?;
    Ok(Image { kernel, archive: path, folder })
}

fn install() -> Result<(), String> {
    let here = Path::new("/");
    let has = |name: &&str| {
        let status = ["-W", "-f", "${db:Status-Status}", name];
        run::output(here, "dpkg-query", &status).is_ok_and(|status| status == "installed")
    };
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    run::run(here, &quiet, "apt-get", &["update", "--quiet"])?;
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(missing);
    run::run(here, &quiet, "apt-get", &arguments)
}

/// The files of Debian's newest kernel, fetched once. It is not installed.
fn kernel(folder: &Path) -> Result<PathBuf, String> {
    let here = Path::new("/");
    let depends = run::output(here, "apt-cache", &["depends", KERNEL])?;
    let named = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = named.ok_or_else(|| format!("{KERNEL} depends on no kernel: {depends}"))?;
    let system = folder.join(package);
    if system.exists() {
        return Ok(system);
    }
    let fetched = folder.join("fetched");
    let _ = fs::remove_dir_all(&fetched);
    fs::create_dir_all(&fetched).map_err(|error| wrong(&fetched, &error))?;
    run::run(&fetched, &[], "apt-get", &["download", "--quiet", package])?;
    let unpacked = folder.join("unpacked");
    // What a call that was cut short has left.
    let _ = fs::remove_dir_all(&unpacked);
    run::run(here, &[], "dpkg-deb", &["-x", &shown(&single(&fetched)?), &shown(&unpacked)])?;
    fs::remove_dir_all(&fetched).map_err(|error| wrong(&fetched, &error))?;
    fs::rename(&unpacked, &system).map_err(|error| wrong(&system, &error))?;
    Ok(system)
}

/// The libraries of a program, the loader among them.
fn libraries(program: &str) -> Result<Vec<String>, String> {
    let said = run::output(Path::new("/"), "ldd", &[program])?;
    let paths =
        said.lines().filter_map(|line| line.split_whitespace().find(|w| w.starts_with('/')));
    Ok(paths.map(str::to_owned).collect())
}

/// The only entry of a directory.
fn single(folder: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|error| wrong(folder, &error))?;
    let entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    match <[PathBuf; 1]>::try_from(entries) {
        Ok([entry]) => Ok(entry),
        Err(_) => Err(format!("{} has not one entry alone", folder.display())),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn wrong(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// An archive as the kernel reads it: `cpio -H newc`.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: usize,
    folders: Vec<String>,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        if !self.folders.iter().any(|known| known == name) {
            self.folders.push(name.to_owned());
            self.entry(name, 0o040_755, &[]);
        }
    }

    fn file(&mut self, name: &str, content: &[u8], mode: u32) {
        let parents: Vec<usize> = name.match_indices('/').map(|(at, _)| at).collect();
        for at in parents {
            self.folder(&name[..at]);
        }
        self.entry(name, 0o100_000 | mode, content);
    }

    fn add(&mut self, name: &str, from: &Path) -> Result<(), String> {
        let content = fs::read(from).map_err(|error| wrong(from, &error))?;
        let metadata = fs::metadata(from).map_err(|error| wrong(from, &error))?;
        self.file(name, &content, metadata.permissions().mode() & 0o777);
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // Number, mode, owner, group, links, time, size, devices twice, length of the name, sum.
        let fields =
            [self.entries, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_a_folder_before_what_lies_in_it() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"12345", 0o755);
        archive.file("a/d", b"", 0o644);
        let bytes = archive.end();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<_> = ["a\0", "a/b\0", "a/b/c\0", "a/d\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name))
            .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
        assert_eq!(text.matches("070701").count(), 5);
        assert!(text.contains("000081ED") && text.contains("12345"));
    }
}
