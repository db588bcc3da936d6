//! Why a caller is refused, in words that a developer can act on and that give nothing away.

use std::borrow::Cow;

const NONE: &str = "No credential came with this request. Send a key or token as `Authorization: Bearer …`.";

const OTHER: &str = "The credential of this request is of a kind that is not taken here. Send a key or token that this \
    proxy knows, as `Authorization: Bearer …`.";

/// Why a request goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing says who calls, and the configuration asks for it.
    #[error("{}", if *other { OTHER } else { NONE })]
    Missing {
        /// There was a credential, of a kind that nobody here reads.
        other: bool,
    },
    /// It begins as our keys do and is none, or none any more.
    #[error("This API key is not known, or not any more. Ask whoever runs this service for a new one.")]
    UnknownKey,
    /// An operator took it back.
    #[error("This API key was revoked. Ask whoever runs this service for a new one.")]
    RevokedKey,
    #[error("Two different API keys came with this request. Send one.")]
    SeveralKeys,
    /// Addresses end up in logs and histories.
    #[error(
        "An API key does not belong in a URL, where logs and histories keep it. Send it as \
        `Authorization: Bearer …`, and have this one replaced."
    )]
    KeyInQuery,
    /// A header of which there may be one came twice.
    #[error("The header {0} came more than once. Send one.")]
    Repeated(&'static str),
    /// So did the one that names the user.
    #[error("The header that names the user came more than once. Send one.")]
    RepeatedUser,
    #[error(transparent)]
    Token(TokenFault),
}

/// What is wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("The token is not a valid JWT. Send it as its issuer gave it out.")]
    Malformed,
    /// `alg: none`, or no signature.
    #[error("The token is not signed (`alg: none`), so it proves nothing. Send a signed one.")]
    Unsigned,
    /// Signed in another way than the configuration takes, or than its key is for.
    #[error(
        "The token is signed with another algorithm (`alg`) than is taken here. Check which one its issuer uses, \
        and `identity.jwt.algorithms`."
    )]
    Algorithm,
    /// An extension that must be understood (`crit`), and is not.
    #[error("The token asks for an extension (`crit`) that is not understood here.")]
    Critical,
    #[error(
        "The token is signed with a key (`kid`) that is not known here. Get a new token. Where the issuer has \
        just changed its keys, try again in a few seconds."
    )]
    UnknownKey,
    /// The keys could not be fetched yet.
    #[error("The keys of the token's issuer could not be fetched yet. Try again in a few seconds.")]
    KeysUnavailable,
    #[error("The token's signature is wrong: it was changed, or another issuer signed it. Get a new one.")]
    Signature,
    #[error("The token has expired. Get a new one.")]
    Expired,
    #[error("The token is not valid yet (`nbf`). Check the clocks of its issuer and this machine.")]
    NotYetValid,
    #[error("The token has no expiry time (`exp`). Have its issuer set one.")]
    NoExpiry,
    #[error("The token is from another issuer (`iss`) than is taken here. Get one from the right issuer.")]
    Issuer,
    #[error("The token is for another audience (`aud`). Ask its issuer for one for this service.")]
    Audience,
    /// The named claim does not name a user.
    #[error("The token's claim `{0}` does not name a user. Have its issuer put it in as a text.")]
    NoUser(String),
    #[error("No team that this token names may call here. Ask whoever runs this service to let it in.")]
    Team,
}

impl Refusal {
    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::KeyInQuery | Self::SeveralKeys | Self::Repeated(_) | Self::RepeatedUser => 400,
            Self::Token(TokenFault::Team) => 403,
            Self::Token(TokenFault::KeysUnavailable) => 503,
            Self::Missing { .. } | Self::UnknownKey | Self::RevokedKey | Self::Token(_) => 401,
        }
    }

    /// Whether newer keys could change the verdict.
    #[must_use]
    pub fn asks_for_newer_keys(&self) -> bool {
        matches!(self, Self::Token(TokenFault::UnknownKey | TokenFault::KeysUnavailable))
    }

    /// What happened and what to do, for the client.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        self.to_string().into()
    }
}
