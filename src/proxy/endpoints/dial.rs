//! Makes one connection to one address: socket, TLS, and which HTTP is spoken over it.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use pingora::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora::protocols::http::v1::client::HttpSession as Http1Session;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora::upstreams::peer::{HttpPeer, Peer};
use tokio::net::{TcpStream, UnixStream};

use super::corked::Corked;
use super::tls::Handshakes;
use crate::telemetry::record::ErrorType;

/// How many requests may share one HTTP/2 connection towards an upstream.
const H2_STREAMS_MAX: usize = 100;

/// What an upstream may send of one answer before the client has taken it. Bounds the memory that a client takes which does
/// not read; at 100 ms to the upstream it still allows for 2.5 MB/s.
const H2_STREAM_WINDOW: u32 = 256 << 10;

/// The same of all answers together: as much as the streams have, or some that nobody reads would take the window from
/// all others.
const H2_CONNECTION_WINDOW: u32 = H2_STREAM_WINDOW * H2_STREAMS_MAX as u32;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) struct Unconnected {
    pub(crate) error: ErrorType,
    /// In words.
    pub(crate) cause: String,
}

/// A new connection.
pub(crate) enum Dialled {
    Http1(Box<Http1Session>),
    Http2(ConnectionRef),
}

/// Connects to `peer`. An HTTP/2 connection is asked every `ping` whether it lives.
///
/// # Errors
/// Why there is no connection.
pub(crate) async fn dial(
    peer: &HttpPeer,
    handshakes: &Handshakes,
    ping: Option<Duration>,
) -> Result<Dialled, Unconnected> {
    let socket = open(peer).await.map_err(|error| Unconnected { error: kind(&error), cause: error.to_string() })?;
    let (stream, h2): (Stream, bool) = if peer.is_tls() {
        let shaken = handshakes.shake(socket, peer).await;
        let stream = shaken.map_err(|cause| Unconnected { error: ErrorType::TlsFailed, cause })?;
        let h2 = stream.is_h2();
        (Box::new(stream), h2)
    } else {
        (Box::new(socket), peer.options.alpn.get_min_http_version() == 2)
    };
    if !h2 {
        let stream = Box::new(Corked::new(stream));
        return Ok(Dialled::Http1(Box::new(Http1Session::new_with_options(stream, peer))));
    }
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = H2_STREAMS_MAX;
    settings.ping_interval = ping;
    settings.stream_window_size = Some(H2_STREAM_WINDOW);
    settings.connection_window_size = Some(H2_CONNECTION_WINDOW);
    let shaken = handshake(stream, settings).await;
    shaken.map(Dialled::Http2).map_err(|error| Unconnected {
        error: ErrorType::ConnectFailed,
        cause: format!("it does not speak HTTP/2 ({})", error.etype().as_str()),
    })
}

async fn open(peer: &HttpPeer) -> io::Result<Socket> {
    let mut socket = match peer.address() {
        SocketAddr::Inet(address) => Socket::from(TcpStream::connect(address).await?),
        SocketAddr::Unix(address) => {
            let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
            Socket::from(UnixStream::connect(path).await?)
        }
    };
    socket.set_nodelay().map_err(|error| io::Error::other(error.to_string()))?;
    let digest = SocketDigest::from_raw_fd(socket.as_raw_fd());
    socket.set_socket_digest(digest);
    Ok(socket)
}

fn kind(error: &io::Error) -> ErrorType {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimeout,
        _ => ErrorType::ConnectFailed,
    }
}
