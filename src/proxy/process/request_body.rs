//! What there is of a request's body, and what it says.

use std::sync::Arc;

use bytes::Bytes;

use super::body_memory::BodyBytes;
use crate::llm::RequestFacts;
use crate::llm::request::form::FormKind;

/// A request whose body is in hand, or will be streamed.
#[derive(Clone)]
pub(crate) struct Admitted {
    pub(crate) body: RequestBody,
    pub(crate) content: Content,
    /// What the body takes of what all may, for as long as anybody has it.
    #[expect(dead_code, reason = "its drop gives back what the body took")]
    pub(crate) bytes: Arc<BodyBytes>,
    pub(crate) facts: Arc<RequestFacts>,
}

/// What there is of a body.
#[derive(Debug, Clone)]
pub(crate) enum RequestBody {
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

impl RequestBody {
    /// Whether there is something of it, all of it at once.
    pub(crate) fn is_in_hand(&self) -> bool {
        matches!(self, Self::Buffered(body) | Self::Edited(body) if !body.is_empty())
    }
}

/// What a body that was read says, decoded and in UTF-8.
#[derive(Debug, Clone)]
pub(crate) enum Content {
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
pub(crate) const MARK: &[u8] = b"\xef\xbb\xbf";

impl Content {
    pub(crate) fn json(&self) -> Option<&Bytes> {
        match self {
            Self::Json { text, .. } => Some(text),
            Self::Unknown | Self::Form { .. } => None,
        }
    }

    /// The body that has `edited` in place of its text: all else stays as the client wrote it.
    pub(crate) fn with_text(&self, edited: Bytes) -> Bytes {
        match self {
            Self::Json { marked: true, .. } => [MARK, &edited].concat().into(),
            _ => edited,
        }
    }

    /// The text of a body that [`Content::with_text`] made.
    pub(crate) fn text_of(&self, body: &Bytes) -> Bytes {
        match self {
            Self::Json { marked: true, .. } if body.starts_with(MARK) => body.slice(MARK.len()..),
            _ => body.clone(),
        }
    }
}
