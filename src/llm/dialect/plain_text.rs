//! Chunked text: any byte is the model's.

use super::closing::Closing;
use super::reader::Reader;
use crate::llm::Reading;
use crate::llm::reading::Produced;
use crate::llm::sse::Event;

/// Chunked text: whatever comes is answer.
#[derive(Debug)]
pub(super) struct PlainText;

impl Reader for PlainText {
    fn event(&mut self, _: Event<'_>, _: &mut Reading) -> Produced {
        Produced::Answer
    }

    fn document(&mut self, _: &[u8], _: &mut Reading) {}

    fn end(&mut self, reading: &mut Reading) {
        reading.normal_end = true;
    }

    fn closing(&self, _: &Reading, _: &mut Closing) -> bool {
        true
    }
}
