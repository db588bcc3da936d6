//! The endpoint of an attempt, as logs, spans and the live view name it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::json::Json;
use super::semconv as names;

/// An endpoint of an upstream, and the address of it that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// As metrics and `/api/upstreams` name it: `host:port`, or a socket's path.
    pub endpoint: Arc<str>,
    /// `server.address`: host or socket path.
    pub address: Arc<str>,
    pub port: Option<u16>,
    /// Where the host is a name: which of its addresses it was.
    pub peer: Option<SocketAddr>,
}

impl ServerAddress {
    /// Writes `server.address` and `server.port`, and for a name `network.peer.address` and `network.peer.port`.
    pub(super) fn render(&self, object: &mut Json<'_>) {
        object.text(names::SERVER_ADDRESS, &self.address);
        object.number_if(names::SERVER_PORT, self.port.map(u64::from));
        if let Some(peer) = self.peer {
            object.text(names::NETWORK_PEER_ADDRESS, &peer.ip().to_string());
            object.number(names::NETWORK_PEER_PORT, u64::from(peer.port()));
        }
    }

    /// The same as span attributes.
    #[cfg(feature = "server")]
    pub(super) fn attributes(&self) -> impl Iterator<Item = opentelemetry::KeyValue> {
        use opentelemetry::KeyValue;
        let peer = self.peer.into_iter().flat_map(|peer| {
            let port = KeyValue::new(names::NETWORK_PEER_PORT, i64::from(peer.port()));
            [KeyValue::new(names::NETWORK_PEER_ADDRESS, peer.ip().to_string()), port]
        });
        let port = self.port.map(|port| KeyValue::new(names::SERVER_PORT, i64::from(port)));
        let (address, endpoint) = (Arc::clone(&self.address), Arc::clone(&self.endpoint));
        let named = [KeyValue::new(names::SERVER_ADDRESS, address), KeyValue::new(names::ENDPOINT, endpoint)];
        named.into_iter().chain(port).chain(peer)
    }
}

/// `host:port`, and the address of a name behind it.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.endpoint)?;
        self.peer.map_or(Ok(()), |peer| write!(f, " ({})", peer.ip()))
    }
}
