//! A request that is answered by us, and with what.

use std::borrow::Cow;

use crate::policy::limits::Standing;
use crate::telemetry::record::{ErrorType, Outcome};

/// For a client whose key was revoked while its request ran.
pub(crate) const KEY_REVOKED: &str = "This API key was revoked. Ask whoever runs this service for a new one.";

/// A request that is answered by us.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) status: u16,
    pub(crate) outcome: Outcome,
    pub(crate) error: ErrorType,
    /// For the client: what happened, and what to do.
    pub(crate) message: Cow<'static, str>,
    /// Seconds.
    pub(crate) retry_after: Option<u32>,
    /// Where the caller stands under its limits.
    pub(crate) standing: Box<Standing>,
}

impl Rejection {
    pub(crate) fn refused(status: u16, error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            outcome: Outcome::Rejected,
            error,
            message: message.into(),
            retry_after: None,
            standing: Box::default(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::refused(400, ErrorType::BadRequest, message)
    }

    /// The key was revoked while the request ran.
    pub(crate) fn revoked() -> Self {
        Self { outcome: Outcome::Stopped, ..Self::refused(401, ErrorType::KeyRevoked, KEY_REVOKED) }
    }

    /// A limit takes no more for now.
    pub(crate) fn limited(message: impl Into<Cow<'static, str>>) -> Self {
        Self::refused(429, ErrorType::RateLimited, message)
    }

    /// Every attempt failed.
    pub(crate) fn upstream(error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::UpstreamError, ..Self::refused(502, error, message) }
    }

    pub(crate) fn timeout(error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Outcome::Timeout, ..Self::refused(504, error, message) }
    }

    pub(crate) fn overloaded(error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(1), ..Self::refused(503, error, message) }
    }

    pub(crate) fn internal() -> Self {
        let message = "Streamgauge failed to handle this request. Please report it with the request id.";
        Self { outcome: Outcome::InternalError, ..Self::refused(500, ErrorType::Internal, message) }
    }
}
