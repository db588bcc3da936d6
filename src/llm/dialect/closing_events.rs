//! Builds the events with which a stream is ended early, in the framing that it has.

use bytes::Bytes;

use crate::llm::format::Framing;

/// The last events of a stream, as they are written.
pub(in crate::llm) struct Closing {
    framing: Framing,
    bytes: Vec<u8>,
}

impl Closing {
    pub(in crate::llm) fn new(framing: Framing) -> Self {
        Self { framing, bytes: Vec::new() }
    }

    /// Writes an event of JSON; an empty name is none.
    pub(super) fn event(&mut self, name: &str, value: &serde_json::Value) {
        if self.framing == Framing::Sse && !name.is_empty() {
            self.write(&["event: ", name, "\n"]);
        }
        self.data(&value.to_string());
    }

    /// Writes an event of one line.
    pub(super) fn data(&mut self, line: &str) {
        match self.framing {
            Framing::Sse => self.write(&["data: ", line, "\n\n"]),
            Framing::JsonLines => self.write(&[line, "\n"]),
            Framing::JsonValues => self.write(&[",\n", line]),
            Framing::Json | Framing::AwsEvents | Framing::Opaque => {}
        }
    }

    pub(in crate::llm) fn into_bytes(mut self) -> Bytes {
        if self.framing == Framing::JsonValues {
            self.write(&["\n]\n"]);
        }
        self.bytes.into()
    }

    fn write(&mut self, parts: &[&str]) {
        for part in parts {
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }
}
