//! What there is of a request's body, and what it says.

use std::sync::Arc;

use bytes::Bytes;

use super::body_bytes::BodyBytes;
use crate::llm::RequestFacts;
use crate::llm::request::form::FormKind;

/// A request whose body is in hand, or will be streamed.
#[derive(Clone)]
pub(super) struct Admitted {
    pub(super) body: RequestBody,
    pub(super) content: Content,
    /// What the body takes of what all may, for as long as anybody has it.
    #[expect(dead_code, reason = "its drop gives back what the body took")]
    pub(super) bytes: Arc<BodyBytes>,
    pub(super) facts: Arc<RequestFacts>,
}

/// What there is of a body.
#[derive(Debug, Clone)]
pub(super) enum RequestBody {
    None,
    /// Read to its end, and goes on as it came: it can be sent again.
    Buffered(Bytes),
    /// In place of one that was read: without the coding that it may have come in.
    Edited(Bytes),
    /// Passes through, once.
    Streamed {
        length: Option<u64>,
        /// What was read of it already.
        first: Bytes,
    },
}

/// What a body that was read says, decoded and in UTF-8.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// It was not read, or is neither of the others.
    Unknown,
    Json {
        /// Without the byte order mark that it may have come with.
        text: Bytes,
        /// It came with UTF-8's: an edited body keeps it.
        marked: bool,
    },
    Form {
        kind: FormKind,
        text: Bytes,
        /// About how many tokens it has.
        tokens: u64,
    },
}

/// UTF-8's byte order mark.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

impl Content {
    pub(super) fn json(&self) -> Option<&Bytes> {
        match self {
            Self::Json { text, .. } => Some(text),
            Self::Unknown | Self::Form { .. } => None,
        }
    }

    /// The body that has `edited` in place of its text: all else stays as the client wrote it.
    pub(super) fn with_text(&self, edited: Bytes) -> Bytes {
        match self {
            Self::Json { marked: true, .. } => [MARK, &edited].concat().into(),
            _ => edited,
        }
    }

    /// The text of a body that [`Content::with_text`] made.
    pub(super) fn text_of(&self, body: &Bytes) -> Bytes {
        match self {
            Self::Json { marked: true, .. } if body.starts_with(MARK) => body.slice(MARK.len()..),
            _ => body.clone(),
        }
    }
}
