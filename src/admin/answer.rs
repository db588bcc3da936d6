//! What the admin address answers.

use bytes::Bytes;
use pingora::http::ResponseHeader;
use serde_json::{Value, json};

pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// Nothing from elsewhere, nothing inline, never in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// One answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: Bytes,
    /// Headers that only this answer has.
    pub(super) extra: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) fn new(content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { status: 200, content_type: content_type.into(), body: body.into(), extra: Vec::new() }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, ..Self::new(JSON, format!("{body}\n")) }
    }

    /// Says what is wrong and what to do.
    pub(super) fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// # Errors
    /// A header value that HTTP does not allow.
    pub(super) fn head(&self) -> pingora::Result<ResponseHeader> {
        let mut head = ResponseHeader::build(self.status, Some(8))?;
        head.insert_header("content-type", self.content_type.as_str())?;
        head.insert_header("content-length", self.body.len().to_string())?;
        guard(&mut head)?;
        for (name, value) in &self.extra {
            head.insert_header(*name, value.as_str())?;
        }
        Ok(head)
    }
}

/// What every answer says about how it may be used.
///
/// # Errors
/// None that could come: the values are our own.
pub(super) fn guard(head: &mut ResponseHeader) -> pingora::Result<()> {
    head.insert_header("cache-control", "no-store")?;
    head.insert_header("x-content-type-options", "nosniff")?;
    // No page of another origin may as much as load it, to learn from its time or size.
    head.insert_header("cross-origin-resource-policy", "same-origin")?;
    // Not `no-referrer`: with that a browser's form names no Origin, by which it is told from another page's.
    head.insert_header("referrer-policy", "same-origin")?;
    head.insert_header("content-security-policy", CONTENT_SECURITY_POLICY)
}
