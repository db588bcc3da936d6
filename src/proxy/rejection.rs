//! A request that is answered by us, and with what.

use std::borrow::Cow;

use crate::policy::limits::Standing;
use crate::telemetry::record::{ErrorType, Outcome};

/// A request that is answered by us.
#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) status: u16,
    pub(super) outcome: Outcome,
    pub(super) error: ErrorType,
    /// For the client: what happened, and what to do.
    pub(super) message: Cow<'static, str>,
    /// Seconds.
    pub(super) retry_after: Option<u32>,
    /// Where the caller stands under its limits.
    pub(super) standing: Box<Standing>,
}

impl Rejection {
    pub(super) fn refused(status: u16, error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            outcome: Outcome::Rejected,
            error,
            message: message.into(),
            retry_after: None,
            standing: Box::default(),
        }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::refused(400, ErrorType::BadRequest, message)
    }

    /// Every attempt failed.
    pub(super) fn upstream(error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: 502,
            outcome: Outcome::UpstreamError,
            error,
            message: message.into(),
            retry_after: None,
            standing: Box::default(),
        }
    }

    pub(super) fn timeout(error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: 504,
            outcome: Outcome::Timeout,
            error,
            message: message.into(),
            retry_after: None,
            standing: Box::default(),
        }
    }

    pub(super) fn overloaded(error: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(1), ..Self::refused(503, error, message) }
    }

    pub(super) fn internal() -> Self {
        Self {
            status: 500,
            outcome: Outcome::InternalError,
            error: ErrorType::Internal,
            message: "Streamgauge failed to handle this request. Please report it with the request id.".into(),
            retry_after: None,
            standing: Box::default(),
        }
    }
}
