//! Who somebody is.

use std::sync::Arc;

/// What is known of a caller. All of it comes from an authenticated credential or a trusted peer; what a client merely
/// says of itself never gets here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub user: Option<Arc<str>>,
    pub team: Option<Arc<str>>,
    /// The API key's public id: the first 12 hex digits of its hash.
    pub key: Option<Arc<str>>,
}
