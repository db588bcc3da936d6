//! What was said, for those who ask for it: prompts and answers, bounded. Nothing here runs unless the configuration says
//! `capture_content = true`.

mod answer;
mod parts;
mod prompt;

pub(super) use answer::Capture;
pub use prompt::Prompt;
