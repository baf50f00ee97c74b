//! Finds out whether callers are who they say, beside everything else that a replicator does.
//!
//! Until that is known, a caller changes nothing. How many are heard at a time is limited.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wire::hello::Welcome;
use wire::local::Caller;

use crate::connection;
use crate::keys::Keys;
use crate::replicator::receiving::Entrance;

/// Callers that are heard at a time; others see their connection closed.
const CALLERS_MAX: usize = 8;

/// Finds out whether callers are who they say.
pub(super) struct Greeter {
    keys: Keys,
    callers: Arc<AtomicUsize>,
}

impl Greeter {
    pub(super) fn new(keys: Keys) -> Greeter {
        Greeter { keys, callers: Arc::default() }
    }

    /// Lets a caller in, or says why not, on a thread of its own.
    pub(super) fn greet(&self, caller: Caller, socket: TcpStream, entrance: Option<Entrance>) {
        let (keys, callers) = (self.keys.clone(), Arc::clone(&self.callers));
        if callers.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX {
            callers.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let greeting = std::thread::Builder::new().name("greet".to_owned()).spawn(move || {
            let from = caller.from.clone();
            if let Err(error) = hear(&keys, caller, socket, entrance) {
                eprintln!("a caller that says it is {from} was turned away: {error}");
            }
            callers.fetch_sub(1, Ordering::Relaxed);
        });
        if greeting.is_err() {
            self.callers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn hear(
    keys: &Keys,
    caller: Caller,
    socket: TcpStream,
    entrance: Option<Entrance>,
) -> std::io::Result<()> {
    let stream = connection::proven(socket, keys, &caller.from, caller.protection)?;
    let entrance = entrance.ok_or_else(|| "this node receives no session now".to_owned());
    match entrance.and_then(|entrance| entrance.admits(&caller).map(|()| entrance)) {
        Ok(entrance) => {
            entrance.connected(caller, stream);
            Ok(())
        }
        Err(why) => connection::welcome(&stream, &Welcome::Absent(why)),
    }
}
