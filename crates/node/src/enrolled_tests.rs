//! A witness's door: nodes of clusters that it knows come in, nobody else, and both sides can say
//! why.

use std::io::Read;
use std::time::Duration;

use model::NodeName;

use super::*;
use crate::keys::Keys;
use crate::keys::tests::Site;
use crate::stream::tests::socket_pair;

const TIME: Duration = Duration::from_secs(20);

struct Place {
    enrolled: Enrolled,
    _site: Site,
    keys: Keys,
    authority: PathBuf,
}

fn place(name: &str) -> Place {
    let site = Site::new(name);
    let keys = site.keys("node1");
    let authority = keys.cluster_key_file().with_file_name("ca.pem");
    // In the site's folder, which is removed with it.
    let enrolled = Enrolled::new(&authority.with_file_name("witness"));
    Place { enrolled, _site: site, keys, authority }
}

/// What both ends of a handshake say, and what the witness makes of the caller.
fn meet(enrolled: &Enrolled, keys: &Keys, known: Fingerprint) -> Result<Caller, [String; 2]> {
    let (ours, theirs) = socket_pair();
    let mut tls = keys.calling_witness(known).unwrap();
    std::thread::scope(|scope| {
        let caller = scope.spawn(move || {
            let mut socket = Until::within(TIME, &ours);
            // The end of the other side, or what it says is wrong.
            rustls::Stream::new(&mut tls, &mut socket).read(&mut [0]).map(drop)
        });
        let met = enrolled.shake_hands(&mut Until::within(TIME, &theirs));
        drop(theirs);
        let said = caller.join().unwrap();
        met.map_err(|error| [error.to_string(), said.unwrap_err().to_string()])
    })
}

#[test]
fn nodes_of_known_clusters_come_in() {
    let Place { enrolled, keys, authority, _site } = place("known");
    let known = enrolled.fingerprint().unwrap();
    assert_eq!(enrolled.fingerprint().unwrap(), known, "it is made once");
    let other = place("many");
    let found: Vec<Fingerprint> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| other.enrolled.fingerprint())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    assert!(found.iter().all(|one| *one == found[0]), "also when many look for it at once");
    let stranger = meet(&enrolled, &keys, known).unwrap();
    let added = enrolled.add(&authority).unwrap();
    assert_eq!(added.name.as_deref(), Some("known"));
    assert_eq!(stranger.cluster.unwrap_err(), added.id, "it is told why");
    let caller = meet(&enrolled, &keys, known).unwrap();
    let shown = caller.shown().unwrap();
    keys::is_for(&shown, &NodeName::new("node1").unwrap()).unwrap();
    assert!(keys::is_for(&shown, &NodeName::new("node2").unwrap()).is_err());
    assert_eq!(caller.cluster.unwrap().as_str(), added.id);
    assert_eq!(enrolled.clusters().unwrap(), std::slice::from_ref(&added));
    enrolled.remove(&added.id).unwrap();
    assert!(enrolled.remove(&added.id).is_err());
    assert!(enrolled.remove("../witness").is_err());
    assert_eq!(enrolled.clusters().unwrap(), []);
}

#[test]
fn a_certificate_of_another_cluster_opens_no_door() {
    let (place, other) = (place("one"), place("other"));
    let known = place.enrolled.fingerprint().unwrap();
    place.enrolled.add(&place.authority).unwrap();
    // It says that it belongs to the known one, and cannot prove it.
    fs::copy(&place.authority, &other.authority).unwrap();
    let [here, _] = meet(&place.enrolled, &other.keys, known).err().unwrap();
    assert!(here.contains("invalid peer certificate"), "{here}");
}

#[test]
fn a_witness_with_another_certificate_is_not_asked() {
    let place = place("pinned");
    place.enrolled.fingerprint().unwrap();
    place.enrolled.add(&place.authority).unwrap();
    let [_, there] = meet(&place.enrolled, &place.keys, Fingerprint([7; 32])).err().unwrap();
    assert!(there.contains("not 070707"), "{there}");
}

#[test]
fn what_is_no_authority_is_not_added() {
    let place = place("wrong");
    fs::write(&place.authority, "no certificate").unwrap();
    let error = place.enrolled.add(&place.authority).unwrap_err().to_string();
    assert!(error.contains("ca.pem"), "{error}");
    assert_eq!(place.enrolled.clusters().unwrap(), []);
}

#[test]
fn files_that_are_of_no_use_hinder_nobody() {
    let place = place("stray");
    let known = place.enrolled.fingerprint().unwrap();
    let added = place.enrolled.add(&place.authority).unwrap();
    let directory = place.authority.with_file_name("witness").join(CLUSTERS);
    fs::write(directory.join(format!("{}.new", added.id)), "half").unwrap();
    fs::write(directory.join("00.pem"), "no certificate").unwrap();
    fs::copy(&place.authority, directory.join("copy.pem")).unwrap();
    fs::create_dir(directory.join("directory.pem")).unwrap();
    assert_eq!(place.enrolled.clusters().unwrap(), std::slice::from_ref(&added));
    let caller = meet(&place.enrolled, &place.keys, known).unwrap();
    assert_eq!(caller.cluster.unwrap().as_str(), added.id);
}
