//! A connection between two nodes, under TLS or not, as whoever sends and hears uses it.
//!
//! Clones are the same connection. Whether it is to be under TLS is decided in `connection`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use crate::sealed::Sealed;

/// A connection between two nodes.
#[derive(Clone)]
pub(crate) enum Stream {
    Plain(Arc<TcpStream>),
    Sealed(Arc<Sealed>),
}

impl Stream {
    pub(crate) fn plain(socket: TcpStream) -> Stream {
        Stream::Plain(Arc::new(socket))
    }

    pub(crate) fn sealed(sealed: Sealed) -> Stream {
        Stream::Sealed(Arc::new(sealed))
    }

    /// The connection itself, for its limits of time.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Sealed(sealed) => sealed.socket(),
        }
    }

    /// Ends a direction or both, for every clone.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket().shutdown(how)
    }

    /// The same connection, from here on without encryption. Neither end may have read more than
    /// it was to read until here.
    pub(crate) fn unsealed(&self) -> io::Result<Stream> {
        self.socket().try_clone().map(Stream::plain)
    }
}

impl Read for &Stream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => (&**socket).read(room),
            Stream::Sealed(sealed) => sealed.read(room),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => (&**socket).write(bytes),
            Stream::Sealed(sealed) => sealed.write_all(bytes).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        (&*self).read(room)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::keys::tests::{Site, connections};

    /// Both ends of a plain connection.
    pub(crate) fn plain_pair() -> (Stream, Stream) {
        let (ours, theirs) = socket_pair();
        (Stream::plain(ours), Stream::plain(theirs))
    }

    /// Both ends of a connection under TLS.
    pub(crate) fn sealed_pair() -> (Stream, Stream) {
        let site = Site::new("pair");
        let (ours, theirs) = connections(&site.keys("node1"), "node2", &site.keys("node2"));
        (Stream::sealed(ours.unwrap()), Stream::sealed(theirs.unwrap()))
    }

    pub(crate) fn socket_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }
}
