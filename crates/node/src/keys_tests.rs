//! Keys of several nodes and clusters, right and wrong, over real connections.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::authority::Authority;
use crate::sealed::Sealed;
use crate::stream::tests::socket_pair;

const TIME: Duration = Duration::from_secs(20);

/// Keys of one cluster in a folder of its own.
pub(crate) struct Site {
    folder: PathBuf,
    authority: Authority,
}

impl Site {
    pub(crate) fn new(name: &str) -> Site {
        let unique = crate::clock::random();
        let folder = std::env::temp_dir().join(format!("evenkeel-keys-{name}-{unique:x}"));
        Site { folder, authority: Authority::new(name).unwrap() }
    }

    /// The keys of a node, made anew.
    pub(crate) fn keys(&self, node: &str) -> Keys {
        let directory = self.folder.join(node);
        let _ = fs::remove_dir_all(&directory);
        self.authority.furnish(&name(node), &directory).unwrap();
        Keys::new(&directory)
    }

    fn file(&self, node: &str, file: &str) -> PathBuf {
        self.folder.join(node).join(file)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

/// Both ends of a connection on which a caller asks for a node.
pub(crate) fn connections(
    caller: &Keys,
    whom: &str,
    called: &Keys,
) -> (io::Result<Sealed>, io::Result<Sealed>) {
    let (ours, theirs) = socket_pair();
    let (calling, called) = (caller.calling(&name(whom)).unwrap(), called.called().unwrap());
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| Sealed::shake_hands(theirs, called, TIME));
        (Sealed::shake_hands(ours, calling, TIME), theirs.join().unwrap())
    })
}

#[test]
fn nodes_of_a_cluster_know_each_other_by_name() {
    let site = Site::new("names");
    let (ours, theirs) = connections(&site.keys("node1"), "node2", &site.keys("node2"));
    ours.unwrap().with(|tls| is_of(tls, &name("node2"))).unwrap();
    let theirs = theirs.unwrap();
    theirs.with(|tls| is_of(tls, &name("node1"))).unwrap();
    let wrong = theirs.with(|tls| is_of(tls, &name("node3"))).unwrap_err();
    assert!(wrong.contains("not a certificate for the name node3"), "{wrong}");
}

#[test]
fn a_node_with_another_name_or_of_another_cluster_is_nobody() {
    let (site, other) = (Site::new("cluster"), Site::new("other"));
    let (one, two) = (site.keys("node1"), site.keys("node2"));
    let (ours, _) = connections(&one, "node3", &two);
    assert!(ours.err().unwrap().to_string().contains("not valid for name"));
    let (ours, theirs) = connections(&one, "node2", &other.keys("node2"));
    assert!(ours.is_err() && theirs.is_err());
    // The caller has shown its certificate last, and hears of it when it reads.
    let (_, theirs) = connections(&other.keys("node1"), "node2", &two);
    assert!(theirs.is_err());
}

#[test]
fn a_certificate_of_another_time_is_named() {
    let site = Site::new("times");
    let (one, two) = (site.keys("node1"), site.keys("node2"));
    let hours = Duration::from_secs(3 * 3600);
    let year = Duration::from_secs(366 * 24 * 3600);
    let now = crate::clock::wall();
    for (wall, words) in [(now + hours, "not valid yet"), (now - year, "expired")] {
        let key = site.file("node2", "node.key");
        let certificate = site.authority.renew(&name("node2"), &key, wall).unwrap();
        fs::write(site.file("node2", "node.pem"), certificate).unwrap();
        let (ours, _) = connections(&one, "node2", &two);
        let error = ours.err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// Breaks a node's keys and says with what words they are refused.
fn refused(spoil: impl FnOnce(&Path)) -> String {
    let site = Site::new("spoilt");
    let keys = site.keys("node1");
    spoil(&site.folder.join("node1"));
    keys.check(&name("node1")).unwrap_err().to_string()
}

#[test]
fn keys_of_no_use_are_named() {
    let site = Site::new("whole");
    site.keys("node1").check(&name("node1")).unwrap();
    let wrong = site.keys("node1").check(&name("node2")).unwrap_err().to_string();
    assert!(wrong.contains("node.pem: it is not a certificate for the name node2"), "{wrong}");
    let missing = refused(|keys| fs::remove_file(keys.join("ca.pem")).unwrap());
    assert!(missing.contains("ca.pem"), "{missing}");
    let empty = refused(|keys| fs::write(keys.join("node.pem"), "").unwrap());
    assert!(empty.contains("node.pem: it holds no certificate"), "{empty}");
    let open = refused(|keys| {
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(keys.join("node.key"), mode).unwrap();
    });
    assert!(open.contains("chmod 600"), "{open}");
    let foreign = refused(|keys| {
        let other = Site::new("foreign");
        other.keys("node1");
        fs::copy(other.file("node1", "node.key"), keys.join("node.key")).unwrap();
    });
    assert!(foreign.contains("node.key"), "{foreign}");
}
