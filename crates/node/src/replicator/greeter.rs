//! Finds out whether callers are who they say, beside everything else that a replicator does.
//!
//! Until that is known, a caller changes nothing. How many are heard at a time is limited: one more
//! takes the place of the one that has not proven itself for longest. Who is turned away is told to
//! the daemon, which counts them all.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wire::hello::{Hello, Purpose, Welcome};
use wire::local::{Caller, FromReplicator};

use crate::connection;
use crate::keys::Keys;
use crate::replicator::daemon_link::DaemonLink;
use crate::replicator::receiving::Entrance;

/// Callers that are heard at a time.
const CALLERS_MAX: usize = 8;

/// Finds out whether callers are who they say.
pub(super) struct Greeter {
    keys: Keys,
    callers: Arc<Mutex<Callers>>,
    daemon: Arc<DaemonLink>,
}

/// Those that have not proven themselves yet, in the order in which they came.
#[derive(Default)]
struct Callers {
    next: u64,
    heard: BTreeMap<u64, TcpStream>,
}

impl Greeter {
    pub(super) fn new(keys: Keys, daemon: &Arc<DaemonLink>) -> Greeter {
        Greeter { keys, callers: Arc::default(), daemon: Arc::clone(daemon) }
    }

    /// Lets a caller in, or says why not, on a thread of its own.
    pub(super) fn greet(&self, caller: Caller, socket: TcpStream, entrance: Option<Entrance>) {
        let Ok(handle) = socket.try_clone() else { return };
        let number = self.came(handle);
        let (keys, callers) = (self.keys.clone(), Arc::clone(&self.callers));
        let daemon = Arc::clone(&self.daemon);
        let greeting = std::thread::Builder::new().name("greet".to_owned()).spawn(move || {
            let from = caller.from.clone();
            if let Err(error) = hear(&keys, (number, caller), socket, entrance) {
                daemon.tell(FromReplicator::TurnedAway { from, why: error.to_string() });
            }
            lock(&callers).heard.remove(&number);
        });
        if greeting.is_err() {
            lock(&self.callers).heard.remove(&number);
        }
    }

    fn came(&self, handle: TcpStream) -> u64 {
        let mut callers = lock(&self.callers);
        if callers.heard.len() >= CALLERS_MAX
            && let Some((_, oldest)) = callers.heard.pop_first()
        {
            let _ = oldest.shutdown(Shutdown::Both);
        }
        callers.next += 1;
        let number = callers.next;
        callers.heard.insert(number, handle);
        number
    }
}

fn hear(
    keys: &Keys,
    (number, caller): (u64, Caller),
    socket: TcpStream,
    entrance: Option<Entrance>,
) -> std::io::Result<()> {
    let wanted = (&caller.from, caller.protection);
    let stream = connection::proven(socket, keys, wanted, |again| is_same(again, &caller))?;
    let entrance = entrance.ok_or_else(|| "this node receives no session now".to_owned());
    match entrance.and_then(|entrance| entrance.admits(&caller).map(|()| entrance)) {
        Ok(entrance) => {
            entrance.connected(number, caller, stream);
            Ok(())
        }
        Err(why) => connection::welcome(&stream, &Welcome::Absent(why)),
    }
}

fn is_same(again: &Hello, caller: &Caller) -> bool {
    let Purpose::Replication { session, joint, .. } = &again.purpose else { return false };
    (*session, *joint) == (caller.session, caller.joint)
}

fn lock(callers: &Mutex<Callers>) -> MutexGuard<'_, Callers> {
    callers.lock().unwrap_or_else(PoisonError::into_inner)
}
