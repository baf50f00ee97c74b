//! Nodes whose programs are of different versions.
//!
//! In production every datagram and every greeting names its version, and nothing else is read of
//! one that is another. So here: a daemon learns of a heartbeat of another version only that it
//! came, no daemon answers one of another version, and replicators of different versions make no
//! link. What runs goes on: a daemon that begins adopts the replicator that the program before it
//! has started, with its link. What another version would decide differently is not known here:
//! both run this code.

use crate::world::World;

impl World {
    /// The program of a host is replaced by the next version, and its daemon with it.
    pub(crate) fn upgrade(&mut self, i: usize) {
        let up = self.hosts[i].up;
        // The daemon is away for so short a time that nothing it holds runs out, unless it was to
        // run out just now.
        if !self.is_calm() {
            self.loosen();
        }
        if up {
            self.end_daemon(i);
        }
        self.hosts[i].program += 1;
        if up {
            self.boot(i);
        }
    }

    /// Whether nothing is wrong between the hosts, and the nodes have found together since it was.
    pub(crate) fn is_calm(&self) -> bool {
        let links = [0, 1].map(|i| self.hosts[i].replicator.link);
        self.network.works() && links[0].is_some() && links[0] == links[1]
    }

    /// Both hosts get the newest program, and the operator has replicators of older ones replaced.
    pub(crate) fn upgrade_all(&mut self) {
        let newest = self.hosts.iter().map(|host| host.program).max().unwrap_or(0);
        for i in 0..2 {
            while self.hosts[i].program < newest {
                self.upgrade(i);
            }
            if self.hosts[i].replicator.program < newest {
                self.replicator_dies(i);
            }
        }
    }

    /// Whether the replicators of both hosts are of one version.
    pub(crate) fn replicators_agree(&self) -> bool {
        self.hosts[0].replicator.program == self.hosts[1].replicator.program
    }

    /// Whether the daemons of both hosts are of one version.
    pub(crate) fn daemons_agree(&self) -> bool {
        self.hosts[0].program == self.hosts[1].program
    }
}
