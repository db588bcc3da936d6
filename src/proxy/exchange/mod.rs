//! One request from its head to the end of its answer: the stages in their order.

pub(super) mod commit;
pub(super) mod early_refusal;
pub(super) mod lingering_close;
pub(super) mod mirror;
pub(super) mod relay;
pub(super) mod reserve_tokens;
pub(super) mod stages;
pub(super) mod termination;
pub(super) mod upload;
pub(super) mod websocket;
pub(super) mod websocket_turns;

#[cfg(test)]
pub(super) mod panic_switch;
