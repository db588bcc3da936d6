//! The upstreams' endpoints: who they are, whether they are up, and the connections to them.

pub(super) mod affinity;
pub(super) mod ca;
pub(super) mod choose;
pub(super) mod connector;
pub(super) mod corked;
pub(super) mod dial;
pub(super) mod endpoint;
pub(super) mod endpoint_pool;
pub(super) mod endpoint_view;
pub(super) mod hinted;
pub(super) mod hints;
pub(super) mod idle_pool;
pub(super) mod lease;
pub(super) mod levers;
pub(super) mod peers;
pub(super) mod retry_budget;
pub(super) mod shared_h2;
pub(super) mod socket;
pub(super) mod tls;
