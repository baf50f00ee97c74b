//! Ctrl-C and SIGTERM as something to look at, so that guards run and a lab is cleaned up. A second
//! signal ends the process at once; the hosts end with it all the same.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Tells whether the user asked to stop.
#[derive(Debug)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    pipe: UnixStream,
}

/// Catches SIGINT and SIGTERM from now on.
///
/// # Errors
/// When the signals cannot be caught.
pub fn install() -> io::Result<Interrupt> {
    let flag = Arc::new(AtomicBool::new(false));
    let (pipe, writer) = UnixStream::pair()?;
    pipe.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM] {
        // Registered first, so it only acts when the flag was set by an earlier signal.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(Interrupt { flag, pipe })
}

impl Interrupt {
    /// Whether a signal has come.
    pub fn requested(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

impl AsFd for Interrupt {
    /// Becomes readable with the first signal and stays so.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_is_noticed_and_ends_nothing() {
        let interrupt = install().unwrap();
        assert!(!interrupt.requested());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(interrupt.requested());
        let mut poll = [rustix::event::PollFd::new(&interrupt, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut poll, None).unwrap(), 1);
    }
}
