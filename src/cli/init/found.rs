//! A server that was found on loopback.

use std::net::SocketAddr;

use super::server_kind::Kind;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) address: SocketAddr,
    pub(super) kind: Kind,
}

impl Found {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Streams of such a server are what is measured here.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.kind, Kind::App { .. } | Kind::Models { .. })
    }
}
