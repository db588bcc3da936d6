//! WebSockets: frames, messages, and what is said in those of LLM interfaces.

mod frames;
mod inflate;
mod messages;
mod turns;

pub use frames::{FrameReader, close_frame, text_frame};
pub use messages::{Extensions, Hidden, Messages, Side};
pub use turns::{Asked, Ended, Happened, Turns, is_ambiguous};
