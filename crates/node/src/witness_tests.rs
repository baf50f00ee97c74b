//! What a witness answers to whom: nodes of two clusters that have everything in common but their
//! authority.

use std::net::IpAddr;

use model::{EpochId, NodeName};
use wire::witness::{put_question, take_reply};

use super::*;
use crate::keys::Keys;
use crate::keys::tests::Site;
use crate::stream::tests::socket_pair;

struct Place {
    door: Door,
    service: Mutex<Service>,
    fingerprint: Fingerprint,
    directory: PathBuf,
    site: Site,
}

impl Place {
    fn new(open: bool) -> Place {
        let site = Site::new("witness");
        let directory = site.keys("witness").cluster_key_file().with_file_name("registers");
        let fingerprint = Enrolled::new(&directory).fingerprint().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = WitnessOptions { listen, directory: directory.clone(), open };
        let file = directory.join("registers.json");
        let service = Mutex::new(Service { witness: Witness::new(BTreeMap::new()), file });
        Place { door: Door::new(&options).unwrap(), service, fingerprint, directory, site }
    }

    fn add(&self, keys: &Keys) {
        let authority = keys.cluster_key_file().with_file_name("ca.pem");
        Enrolled::new(&self.directory).add(&authority).unwrap();
    }

    /// Has the witness serve one connection while somebody speaks over its other end.
    fn meet<T: Send>(&self, speak: impl FnOnce(&mut Until<'_>) -> T + Send) -> T {
        let (ours, theirs) = socket_pair();
        std::thread::scope(|scope| {
            let speaking = scope.spawn(move || speak(&mut Until::within(QUESTION_TIMEOUT, &ours)));
            self.door.answer(&theirs, &self.service);
            drop(theirs);
            speaking.join().unwrap()
        })
    }

    /// Asks as a node with these keys.
    fn ask(&self, keys: &Keys, question: &Question) -> io::Result<Reply> {
        let mut tls = keys.calling_witness(self.fingerprint)?;
        self.meet(|socket| exchange(&mut rustls::Stream::new(&mut tls, socket), question))
    }

    fn refused(&self) -> u64 {
        match &self.door {
            Door::Open => 0,
            Door::Guarded { refused, .. } => refused.so_far(),
        }
    }
}

fn exchange(stream: &mut (impl Read + Write), question: &Question) -> io::Result<Reply> {
    let mut out = Vec::new();
    put_question(&mut out, question);
    stream.write_all(&out)?;
    stream.flush()?;
    let mut frame = Vec::new();
    connection::read_frame(stream, WITNESS_BYTES_MAX, &mut frame)?;
    take_reply(&frame).map_err(io::Error::other)
}

fn enrol(from: &str, epoch: u128) -> Question {
    let name = |text| ModuleName::new(text).unwrap();
    let node = |text| NodeName::new(text).unwrap();
    let members = [node("node1"), node("node2")].into();
    let epoch = cluster::witness::Standing { number: 1, id: EpochId(epoch) };
    let request = cluster::witness::Request::Enrol { epoch, members };
    Question { cluster: name("demo"), module: name("shop"), from: node(from), request }
}

fn granted(reply: io::Result<Reply>) -> bool {
    matches!(reply, Ok(Reply::Answer(cluster::witness::Answer::Granted)))
}

fn unable(reply: io::Result<Reply>) -> String {
    match reply.unwrap() {
        Reply::Unable(why) => why,
        Reply::Answer(answer) => panic!("{answer:?}"),
    }
}

#[test]
fn nodes_are_believed_their_own_name_alone() {
    let place = Place::new(false);
    let keys = ["node1", "node2"].map(|node| place.site.keys(node));
    let why = unable(place.ask(&keys[0], &enrol("node1", 1)));
    assert!(why.contains("does not know the cluster"), "{why}");
    place.add(&keys[0]);
    assert!(!granted(place.ask(&keys[0], &enrol("node1", 1))), "the other one has not asked");
    let why = unable(place.ask(&keys[0], &enrol("node2", 1)));
    assert!(why.contains("not a certificate for the name node2"), "{why}");
    assert!(granted(place.ask(&keys[1], &enrol("node2", 1))));
    assert_eq!(place.refused(), 2);
}

#[test]
fn clusters_of_one_name_do_not_meet() {
    let (place, other) = (Place::new(false), Site::new("witness"));
    let ours = ["node1", "node2"].map(|node| place.site.keys(node));
    let theirs = ["node1", "node2"].map(|node| other.keys(node));
    place.add(&ours[0]);
    place.add(&theirs[0]);
    let ask = |keys: &Keys, from, epoch| place.ask(keys, &enrol(from, epoch));
    assert!(!granted(ask(&ours[0], "node1", 1)));
    assert!(!granted(ask(&theirs[1], "node2", 1)), "it is no other half");
    assert!(granted(ask(&ours[1], "node2", 1)));
    assert!(!granted(ask(&theirs[0], "node1", 2)));
    assert!(granted(ask(&theirs[1], "node2", 2)), "it has a register of its own");
}

#[test]
fn nobody_is_answered_in_the_clear_unless_the_witness_is_open() {
    let (guarded, open) = (Place::new(false), Place::new(true));
    let question = enrol("node1", 1);
    assert!(guarded.meet(|socket| exchange(socket, &question)).is_err());
    assert!(guarded.meet(|socket| socket.write_all(&[0xff; 100])).is_ok());
    assert_eq!(guarded.refused(), 2);
    assert!(open.meet(|socket| exchange(socket, &question)).is_ok());
}

#[test]
fn what_a_witness_cannot_write_it_does_not_grant_and_says_why() {
    let place = Place::new(true);
    let ask = |from| place.meet(|socket| exchange(socket, &enrol(from, 1)));
    assert!(!granted(ask("node1")), "the other one has not asked");
    let file = std::mem::replace(
        &mut place.service.lock().unwrap().file,
        PathBuf::from("/proc/nowhere/registers.json"),
    );
    for _ in 0..2 {
        let why = unable(ask("node2"));
        assert!(why.contains("cannot write /proc/nowhere/registers.json"), "{why}");
        assert!(why.contains("No such file or directory"), "{why}");
    }
    place.service.lock().unwrap().file = file;
    assert!(granted(ask("node2")));
}

#[test]
fn a_node_has_places_for_as_many_modules_as_it_may_ask_for_at_once() {
    let callers = Callers::new(CALLERS_MAX, CALLERS_OF_ONE_MAX);
    let node = IpAddr::from([10, 0, 0, 1]);
    let asked: Vec<_> = (0..40).filter_map(|_| callers.admit(node)).collect();
    assert_eq!(asked.len(), 32);
}

#[test]
fn a_stranger_who_holds_connections_open_keeps_nobody_else_out() {
    let Place { door, service, directory, .. } = Place::new(true);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
    let (door, service) = (Arc::new(door), Arc::new(service));
    // It ends with the process.
    std::thread::spawn(move || answer_all(&listener, &door, &service));
    let held: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(at).unwrap()).collect();
    let node = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    );
    let node = node.unwrap();
    rustix::net::bind(&node, &SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    rustix::net::connect(&node, &at).unwrap();
    let stream = TcpStream::from(node);
    let reply = exchange(&mut Until::within(QUESTION_TIMEOUT, &stream), &enrol("node1", 1));
    assert!(reply.is_ok(), "{reply:?}");
    drop((held, directory));
}
