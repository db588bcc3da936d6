//! Connections come in: how many may, which HTTP they speak, and the heads of their requests.

pub(super) mod connection;
pub(super) mod request_head;

#[cfg(test)]
pub(super) mod panic_tests;
