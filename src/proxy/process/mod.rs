//! What outlives a request: the configuration's state, counts over all requests, canaries, and what people steer.

pub(super) mod body_memory;
pub(super) mod canary;
pub(super) mod canary_sample;
pub(super) mod check_health;
pub(super) mod concurrency;
pub(super) mod drain;
pub(super) mod fetch_keys;
pub(super) mod fleet;
pub(super) mod in_service;
pub(super) mod lever_commands;
pub(super) mod mirror_memory;
pub(super) mod remote_keys;
pub(super) mod request_body;
pub(super) mod rollout;
pub(super) mod state;
pub(super) mod usage;
