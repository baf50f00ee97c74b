//! `evenkeel mount` as mount(8) calls it, in the background, and under limits. What the file system
//! does is tested in its own crate.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it needs and stops")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_evenkeel");

/// A directory for one test, where nothing stays mounted.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        assert!(rustix::process::geteuid().is_root(), "the tests of the mount must run as root");
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mount-command-{name}"));
        let _ = mount::remove_leftovers(&base.join("view"));
        let _ = fs::remove_dir_all(&base);
        for below in ["source", "view", "sbin"] {
            fs::create_dir_all(base.join(below)).unwrap();
        }
        std::os::unix::fs::symlink(BINARY, base.join("sbin/mount.fuse.evenkeel")).unwrap();
        fs::write(base.join("source/file"), b"content").unwrap();
        Scratch(base)
    }

    /// Runs a script there, in mount name spaces of its own; what it says.
    fn script(&self, script: &str) -> (bool, String) {
        let done = Command::new("unshare")
            .args(["--mount", "sh", "-euc", &format!("exec 2>&1\n{script}")])
            .current_dir(&self.0)
            .env("BINARY", BINARY)
            .output()
            .unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = mount::remove_leftovers(&self.0.join("view"));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a script finds the process that serves, and waits for its end.
const SERVER: &str = r#"
server() { pgrep -f "serve-for-parent" | while read pid; do
    if grep -Eqz "^($PWD/)?view\$" /proc/$pid/cmdline; then echo $pid; fi; done; }
"#;

#[test]
fn fstab_mounts_and_umount_ends() {
    let scratch = Scratch::new("fstab");
    let script = format!(
        "{SERVER}
        mount -t overlay overlay -o lowerdir=$PWD/sbin:/usr/sbin /usr/sbin
        echo \"$PWD/source $PWD/view fuse.evenkeel noatime,nodev,nofail,threads=2 0 0\" > fstab
        mount -T fstab $PWD/view
        findmnt -n -o SOURCE,FSTYPE,OPTIONS view | grep -o '^.*noatime'
        cat view/file; echo ' read'
        echo new > view/new; cat source/new
        pid=$(server); test -n \"$pid\"
        umount view
        tail --pid=$pid -f /dev/null; echo ended
        ls view
        mount -t fuse.evenkeel -o ro,source=$PWD/source nothing $PWD/view
        cat view/new; ! touch view/refused
        pid=$(server); umount view; tail --pid=$pid -f /dev/null; echo ended
        ! mount -t fuse.evenkeel -o nonsense $PWD/source $PWD/view
        ! mount -t fuse.evenkeel $PWD/missing $PWD/view"
    );
    let (done, said) = scratch.script(&script);
    let base = scratch.0.display();
    let expected = [
        &format!("{base}/source fuse.evenkeel rw,nodev,noatime"),
        "content read",
        "new",
        "ended",
        "new",
        "touch: cannot touch 'view/refused': Read-only file system",
        "ended",
        "mount.fuse.evenkeel: `nonsense` is no option of a fuse.evenkeel mount",
        &format!(
            "evenkeel mount: {base}/missing cannot be opened as a directory: \
                  No such file or directory (os error 2)"
        ),
    ];
    assert!(done, "{said}");
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{said}");
}

#[test]
fn a_limit_of_its_own_ends_no_server() {
    let scratch = Scratch::new("limited");
    let script = format!(
        "{SERVER}
        sh -c \"ulimit -f 8; exec $BINARY mount source view --background\"
        head -c 100000 /dev/zero > view/large || echo refused
        wc -c < view/file
        pid=$(server); kill -TERM $pid; tail --pid=$pid -f /dev/null
        ls view | wc -l"
    );
    let (done, said) = scratch.script(&script);
    assert!(done, "{said}");
    // Whether the limit can be lifted depends on what this process itself may do.
    assert!(said.ends_with("7\n0\n"), "{said}");
}
