//! Where connections come in: an address of one's own, or sockets that somebody else listens on.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpStream};

use crate::{Error, Result};

/// At least one socket.
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    /// Who is asked first, so that none keeps the others waiting.
    next: usize,
}

impl Listeners {
    /// Takes an address, as `127.0.0.1:8443`.
    pub(super) async fn bind(address: &str) -> Result<Self> {
        let socket = TcpListener::bind(address).await.map_err(|error| unavailable(address, &error))?;
        Ok(Self { sockets: vec![socket], next: 0 })
    }

    /// Takes over sockets that listen already.
    pub(super) fn adopt(sockets: Vec<std::net::TcpListener>) -> Result<Self> {
        let adopt = |socket: std::net::TcpListener| {
            socket.set_nonblocking(true)?;
            TcpListener::from_std(socket)
        };
        let sockets: io::Result<Vec<_>> = sockets.into_iter().map(adopt).collect();
        let sockets = sockets.map_err(|error| unavailable("a socket handed over", &error))?;
        Ok(Self { sockets, next: 0 })
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let addresses = self.sockets.iter().map(TcpListener::local_addr);
        addresses.collect::<io::Result<_>>().map_err(|error| unavailable("a socket handed over", &error))
    }

    /// The next connection on any of them.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        for turn in 0..self.sockets.len() {
            let index = (self.next + turn) % self.sockets.len();
            if let Poll::Ready(accepted) = self.sockets[index].poll_accept(context) {
                self.next = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

fn unavailable(listen: &str, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has this port; choose another with --listen".into(),
        io::ErrorKind::PermissionDenied => "ports below 1024 are root's; choose another with --listen".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    };
    Error::Listen { address: listen.to_owned(), reason }
}
