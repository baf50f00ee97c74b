//! A ring of bytes, mapped twice in a row, so that what is in it is never in two pieces.
//!
//! It keeps no account of what is in it; positions count all bytes ever written.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::map::Map;

/// A ring of bytes that outlive the process.
#[derive(Debug)]
pub struct Ring {
    map: Arc<Map>,
}

/// What sends out of a ring while its owner goes on writing to it.
#[derive(Debug, Clone)]
pub struct RingSender {
    map: Arc<Map>,
}

impl Ring {
    pub(crate) fn map(file: BorrowedFd<'_>, at: usize, bytes: usize) -> Result<Ring, Errno> {
        Ok(Ring { map: Arc::new(Map::twice(file, at, bytes)?) })
    }

    /// How much is in it at most, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.map.bytes() / 2
    }

    /// Writes from a position on, over what was written one round before.
    ///
    /// # Panics
    /// It is more than the ring holds.
    #[allow(unsafe_code, reason = "the bytes behind a mapping have no safe type")]
    pub fn write(&mut self, position: u64, bytes: &[u8]) {
        assert!(bytes.len() <= self.bytes(), "{} bytes for {}", bytes.len(), self.bytes());
        let at = offset(position, self.bytes());
        // SAFETY: no more than half of the mapping, beginning in its first half; only this owner
        // reads or writes it in this process but for system calls, which may see either state.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.at().add(at), bytes.len());
        }
    }

    /// A copy of this many bytes from a position on.
    ///
    /// # Panics
    /// It is more than the ring holds.
    #[must_use]
    #[allow(unsafe_code, reason = "the bytes behind a mapping have no safe type")]
    pub fn read(&self, position: u64, length: usize) -> Vec<u8> {
        assert!(length <= self.bytes(), "{length} bytes of {}", self.bytes());
        let at = offset(position, self.bytes());
        // SAFETY: as in `write`.
        unsafe { std::slice::from_raw_parts(self.map.at().add(at), length).to_vec() }
    }

    /// What sends out of it.
    #[must_use]
    pub fn sender(&self) -> RingSender {
        RingSender { map: Arc::clone(&self.map) }
    }
}

impl RingSender {
    /// Sends all of so many bytes from a position on, however long it takes.
    pub fn send_all(&self, to: impl AsFd, mut position: u64, mut length: usize) -> io::Result<()> {
        while length > 0 {
            match self.send(to.as_fd(), position, length, false) {
                Ok(count) => {
                    position += count as u64;
                    length -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends bytes from a position on, as send(2) does: perhaps not all of them.
    ///
    /// # Panics
    /// It is more than the ring holds.
    #[allow(unsafe_code, reason = "the kernel reads the ring while its owner may write to it")]
    pub fn send(
        &self,
        to: impl AsFd,
        position: u64,
        length: usize,
        at_once: bool,
    ) -> io::Result<usize> {
        let bytes = self.map.bytes() / 2;
        assert!(length <= bytes, "{length} bytes of {bytes}");
        let wait = if at_once { libc::MSG_DONTWAIT } else { 0 };
        let socket = to.as_fd().as_raw_fd();
        // SAFETY: no more than half of the mapping, beginning in its first half; only the kernel
        // reads it, to which a change of the bytes at the same time does no harm.
        let sent = unsafe {
            let from = self.map.at().add(offset(position, bytes));
            libc::send(socket, from.cast(), length, wait | libc::MSG_NOSIGNAL)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn offset(position: u64, bytes: usize) -> usize {
    // The remainder is smaller than a size that is a `usize`.
    (position % bytes as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use crate::{Memory, PAGE_BYTES};

    #[test]
    fn bytes_across_the_end_are_in_one_piece() {
        let memory = Memory::new("test", 2 * PAGE_BYTES).unwrap();
        let mut ring = memory.ring(PAGE_BYTES, PAGE_BYTES).unwrap();
        let position = 10 * PAGE_BYTES as u64 - 3;
        ring.write(position, b"across");
        assert_eq!(ring.read(position, 6), b"across");
        assert_eq!(ring.read(position + 3, 3), b"oss");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(ring.sender().send(&ours, position + 1, 5, true).unwrap(), 5);
        let mut room = [0; 5];
        theirs.read_exact(&mut room).unwrap();
        assert_eq!(&room, b"cross");
        drop(theirs);
        assert!(ring.sender().send(&ours, position, 6, true).is_err());
    }
}
