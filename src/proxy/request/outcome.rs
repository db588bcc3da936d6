//! What a stage comes to: the client's connection may go on or not, and why a request goes no further.

use super::rejection::Rejection;

/// How the client's connection is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Ending {
    /// The answer is whole.
    Clean,
    /// The answer broke off: it must not look like a whole one.
    Dirty,
}

/// Why a stage goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// We answer.
    Reject(Rejection),
    /// Nobody is there to be answered.
    ClientGone,
    /// The process goes down and has waited long enough.
    Cut,
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(rejection)
    }
}
