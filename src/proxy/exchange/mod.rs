//! One request from its head to the end of its answer: the stages in their order.

pub(super) mod early_refusal;
pub(super) mod mirror;
pub(super) mod read_after_end;
pub(super) mod relay;
pub(super) mod reserve_tokens;
pub(super) mod seldom;
pub(super) mod send_response_head;
pub(super) mod stages;
pub(super) mod termination;
pub(super) mod upload;
pub(super) mod websocket;
pub(super) mod websocket_turns;

#[cfg(test)]
pub(super) mod panic_switch;
