//! The faults of a round, and how each is mended. When this is over both nodes are up.

use std::thread;
use std::time::Duration;

use super::Round;
use crate::support::applications::succeed;
use crate::support::{NETWORK, NODES, PATIENCE, other};

/// Looks for a new replicator before it is taken for the old one.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// How a node is taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// Its processes die; what its kernel had is kept.
    Kill,
    /// Its disks lose what was not synced.
    Power,
}

/// What happens to the cluster in one round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The primary's replicator is killed, again and again.
    Replicator,
    /// It is killed together with the daemon.
    ReplicatorAndDaemon,
    /// It is killed together with its keeper, so that nobody goes on in its place.
    ReplicatorAndKeeper,
    /// The secondary's is.
    PeerReplicator,
    /// The primary is taken away.
    Primary(Blow),
    /// The secondary is, and comes back while the writers go on.
    Secondary(Blow),
    /// Both are; the former primary returns first, or last.
    Both(Blow, Return),
    /// The nodes lose each other; both reach the witness.
    Cut,
    /// The primary loses its network.
    Isolated,
    /// The primary stands still, and goes on when the other has taken over.
    Frozen,
    /// The secondary stands still and goes on.
    PeerFrozen,
    /// The secondary returns and is taken away in the midst of its resync.
    SecondaryInResync(Blow),
    /// The primary is taken away in the midst of the secondary's resync.
    PrimaryInResync(Blow),
}

/// How often a replicator dies in a row.
const DEATHS: usize = 10;
/// Fewer than make a keeper give up, however soon one follows the other.
const DEATHS_IN_A_ROW: usize = 4;

/// Who returns first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// The former primary.
    First,
    /// The former secondary.
    Last,
}

/// All of them; a seed's rest says which.
const FAULTS: [Fault; 20] = [
    Fault::Primary(Blow::Power),
    Fault::Primary(Blow::Kill),
    Fault::Replicator,
    Fault::Both(Blow::Power, Return::First),
    Fault::Cut,
    Fault::Frozen,
    Fault::SecondaryInResync(Blow::Power),
    Fault::Both(Blow::Kill, Return::Last),
    Fault::Secondary(Blow::Power),
    Fault::PrimaryInResync(Blow::Power),
    Fault::PeerReplicator,
    Fault::Secondary(Blow::Kill),
    Fault::Both(Blow::Power, Return::Last),
    Fault::Both(Blow::Kill, Return::First),
    Fault::Isolated,
    Fault::PeerFrozen,
    Fault::SecondaryInResync(Blow::Kill),
    Fault::PrimaryInResync(Blow::Kill),
    Fault::ReplicatorAndKeeper,
    Fault::ReplicatorAndDaemon,
];

impl Fault {
    /// The fault of a seed.
    pub fn of(seed: u64) -> Fault {
        FAULTS[(seed % FAULTS.len() as u64) as usize]
    }

    /// What it is called where figures are added up.
    pub fn word(self) -> &'static str {
        match self {
            Fault::Replicator => "replicator-killed",
            Fault::ReplicatorAndDaemon => "replicator-and-daemon-killed",
            Fault::ReplicatorAndKeeper => "replicator-and-keeper-killed",
            Fault::PeerReplicator => "secondary-replicator-killed",
            Fault::Primary(Blow::Kill) => "primary-killed",
            Fault::Primary(Blow::Power) => "primary-power",
            Fault::Secondary(Blow::Kill) => "secondary-killed",
            Fault::Secondary(Blow::Power) => "secondary-power",
            Fault::Both(Blow::Kill, Return::First) => "both-killed-primary-returns-first",
            Fault::Both(Blow::Kill, Return::Last) => "both-killed-primary-returns-last",
            Fault::Both(Blow::Power, Return::First) => "both-power-primary-returns-first",
            Fault::Both(Blow::Power, Return::Last) => "both-power-primary-returns-last",
            Fault::Cut => "cut",
            Fault::Isolated => "primary-isolated",
            Fault::Frozen => "primary-frozen",
            Fault::PeerFrozen => "secondary-frozen",
            Fault::SecondaryInResync(Blow::Kill) => "secondary-killed-in-resync",
            Fault::SecondaryInResync(Blow::Power) => "secondary-power-in-resync",
            Fault::PrimaryInResync(Blow::Kill) => "primary-killed-in-resync",
            Fault::PrimaryInResync(Blow::Power) => "primary-power-in-resync",
        }
    }

    /// Whether the application on the former primary may see errors.
    pub fn ends_writers(self) -> bool {
        match self {
            Fault::Replicator
            | Fault::ReplicatorAndDaemon
            | Fault::Secondary(_)
            | Fault::PeerReplicator
            | Fault::PeerFrozen
            | Fault::SecondaryInResync(_) => false,
            Fault::ReplicatorAndKeeper
            | Fault::Primary(_)
            | Fault::Both(..)
            | Fault::Cut
            | Fault::Isolated
            | Fault::Frozen
            | Fault::PrimaryInResync(_) => true,
        }
    }
}

impl Round<'_> {
    /// Does what the seed's fault says, and has both nodes up again.
    pub fn break_and_mend(&self) {
        let (primary, secondary) = (self.primary, other(self.primary));
        match self.fault {
            Fault::Replicator | Fault::ReplicatorAndDaemon | Fault::ReplicatorAndKeeper => {
                self.kill_replicator_and_more(primary);
            }
            Fault::PeerReplicator => {
                self.kill_replicator(secondary);
                self.moment(1000);
            }
            Fault::Primary(blow) => {
                self.strike(primary, blow);
                self.cluster.wait_for(secondary, "alone", PATIENCE);
                self.check("on the survivor", secondary);
                self.moment(500);
                self.cluster.boot_node(primary);
            }
            Fault::Secondary(blow) => {
                self.strike(secondary, blow);
                self.let_alone(primary);
                self.cluster.boot_node(secondary);
                self.moment(1500);
            }
            Fault::Both(blow, order) => self.lose_both(blow, order),
            Fault::Cut | Fault::Isolated => self.lose_contact(),
            Fault::Frozen => {
                self.mark();
                self.cluster.lab().freeze(primary).unwrap();
                self.cluster.wait_for(secondary, "alone", PATIENCE);
                self.moment(500);
                self.cluster.lab().thaw(primary).unwrap();
            }
            Fault::PeerFrozen => {
                self.mark();
                self.cluster.lab().freeze(secondary).unwrap();
                self.let_alone(primary);
                self.cluster.lab().thaw(secondary).unwrap();
                self.moment(1500);
            }
            Fault::SecondaryInResync(blow) => {
                self.return_to_resync(secondary);
                self.strike(secondary, blow);
                self.let_alone(primary);
                self.cluster.boot_node(secondary);
                self.moment(1000);
            }
            Fault::PrimaryInResync(blow) => {
                self.return_to_resync(secondary);
                self.strike(primary, blow);
                self.moment(1500);
                self.cluster.boot_node(primary);
            }
        }
    }

    fn kill_replicator_and_more(&self, primary: &'static str) {
        match self.fault {
            Fault::ReplicatorAndDaemon => {
                self.cluster.daemon(primary).kill(9).unwrap();
                self.kill_replicator(primary);
                self.moment(300);
                self.cluster.start_daemon(primary);
            }
            Fault::ReplicatorAndKeeper => {
                let keeper = self.process(primary, "keeper").expect("a keeper runs");
                succeed(&self.cluster.host(primary), &["kill", "-9", &keeper]);
                self.kill_replicator(primary);
                self.serving();
            }
            _ => {
                for death in 1..=DEATHS {
                    let before = self.resumed(primary);
                    self.kill_replicator(primary);
                    self.moment(300);
                    if death % DEATHS_IN_A_ROW == 0 {
                        self.cluster.until("a replicator that goes on", PATIENCE, || {
                            self.resumed(primary) > before
                        });
                    }
                }
            }
        }
    }

    /// How often a replicator of a node went on in the place of a dead one.
    fn resumed(&self, node: &str) -> usize {
        let told = self.cluster.must(node, &["events", self.cluster.module(), "-n", "10000"]);
        told.matches("replicator-resumed").count()
    }

    fn lose_both(&self, blow: Blow, order: Return) {
        let (primary, secondary) = (self.primary, other(self.primary));
        self.strike(primary, blow);
        self.moment(1500);
        self.strike(secondary, blow);
        let first = if order == Return::First { primary } else { secondary };
        self.cluster.boot_node(first);
        self.moment(2000);
        self.cluster.boot_node(other(first));
    }

    /// The secondary dies and comes back, and has perhaps caught up already.
    fn return_to_resync(&self, secondary: &'static str) {
        self.strike(secondary, Blow::Kill);
        self.let_alone(self.primary);
        self.cluster.boot_node(secondary);
        self.moment(700);
    }

    fn strike(&self, node: &'static str, blow: Blow) {
        self.mark();
        match blow {
            Blow::Kill => self.cluster.lab().kill(node).unwrap(),
            Blow::Power => {
                self.powered.borrow_mut().insert(node);
                self.cluster.lab().power(node).unwrap();
            }
        }
    }

    /// The primary goes on without its peer, for a while.
    fn let_alone(&self, primary: &str) {
        self.cluster.wait_for_role(primary, &["ALONE"]);
        self.moment(1200);
    }

    fn lose_contact(&self) {
        let lab = self.cluster.lab();
        self.mark();
        if self.fault == Fault::Cut {
            lab.cut(NODES[0], NODES[1]).unwrap();
        } else {
            lab.cut_network(self.primary, NETWORK).unwrap();
        }
        self.cluster.until("one goes on alone", PATIENCE, || {
            NODES.into_iter().filter(|node| self.cluster.role(node) == "ALONE").count() == 1
        });
        self.moment(500);
        lab.heal().unwrap();
    }

    fn kill_replicator(&self, node: &str) {
        let mut old = None;
        self.cluster.until("a replicator runs", PATIENCE, || {
            old = self.process(node, "replicator");
            old.is_some()
        });
        let old = old.expect("it was found");
        self.mark();
        succeed(&self.cluster.host(node), &["kill", "-9", &old]);
        self.cluster.until("another replicator, or none", PATIENCE, || {
            thread::sleep(LOOK_PAUSE);
            self.process(node, "replicator").as_ref() != Some(&old)
        });
    }

    fn process(&self, node: &str, verb: &str) -> Option<String> {
        let pattern = format!("[^ ]*evenkeel .*{verb} ledger .*");
        let output = self.cluster.host(node).run(["pgrep", "-f", "-x", &*pattern]).unwrap();
        String::from_utf8_lossy(&output.stdout).split_whitespace().next().map(str::to_owned)
    }
}
