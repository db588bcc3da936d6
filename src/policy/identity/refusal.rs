//! Why a caller is refused, in words that a developer can act on and that give nothing away.

use std::borrow::Cow;

/// Why a request goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing says who calls, and the configuration asks for it.
    Missing {
        /// There was a credential, of a kind that nobody here reads.
        other: bool,
    },
    /// It begins as our keys do and is none, or none any more.
    UnknownKey,
    /// An operator took it back.
    RevokedKey,
    SeveralKeys,
    /// Addresses end up in logs and histories.
    KeyInQuery,
    /// A header of which there may be one came twice.
    Repeated(&'static str),
    /// So did the one that names the user.
    RepeatedUser,
    Token(TokenFault),
}

/// What is wrong with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenFault {
    Malformed,
    /// `alg: none`, or no signature.
    Unsigned,
    /// Signed in another way than the configuration takes, or than its key is for.
    Algorithm,
    /// An extension that must be understood (`crit`), and is not.
    Critical,
    UnknownKey,
    /// The keys could not be fetched yet.
    KeysUnavailable,
    Signature,
    Expired,
    NotYetValid,
    NoExpiry,
    Issuer,
    Audience,
    /// The named claim does not name a user.
    NoUser(String),
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
        match self {
            Self::Missing { other: false } => {
                "No credential came with this request. Send a key or token as `Authorization: Bearer …`."
            }
            Self::Missing { other: true } => {
                "The credential of this request is of a kind that is not taken here. Send a key or token that this \
                 proxy knows, as `Authorization: Bearer …`."
            }
            Self::UnknownKey => {
                "This API key is not known, or not any more. Ask whoever runs this service for a new one."
            }
            Self::RevokedKey => "This API key was revoked. Ask whoever runs this service for a new one.",
            Self::SeveralKeys => "Two different API keys came with this request. Send one.",
            Self::KeyInQuery => {
                "An API key does not belong in a URL, where logs and histories keep it. Send it as \
                 `Authorization: Bearer …`, and have this one replaced."
            }
            Self::Repeated(name) => return format!("The header {name} came more than once. Send one.").into(),
            Self::RepeatedUser => "The header that names the user came more than once. Send one.",
            Self::Token(fault) => return fault.message(),
        }
        .into()
    }
}

impl TokenFault {
    fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Malformed => "The token is not a valid JWT. Send it as its issuer gave it out.",
            Self::Unsigned => "The token is not signed (`alg: none`), so it proves nothing. Send a signed one.",
            Self::Algorithm => {
                "The token is signed with another algorithm (`alg`) than is taken here. Check which one its issuer uses, \
                 and `identity.jwt.algorithms`."
            }
            Self::Critical => "The token asks for an extension (`crit`) that is not understood here.",
            Self::UnknownKey => {
                "The token is signed with a key (`kid`) that is not known here. Get a new token. Where the issuer has \
                 just changed its keys, try again in a few seconds."
            }
            Self::KeysUnavailable => "The keys of the token's issuer could not be fetched yet. Try again in a few seconds.",
            Self::Signature => "The token's signature is wrong: it was changed, or another issuer signed it. Get a new one.",
            Self::Expired => "The token has expired. Get a new one.",
            Self::NotYetValid => "The token is not valid yet (`nbf`). Check the clocks of its issuer and this machine.",
            Self::NoExpiry => "The token has no expiry time (`exp`). Have its issuer set one.",
            Self::Issuer => "The token is from another issuer (`iss`) than is taken here. Get one from the right issuer.",
            Self::Audience => "The token is for another audience (`aud`). Ask its issuer for one for this service.",
            Self::NoUser(claim) => {
                return format!("The token's claim `{claim}` does not name a user. Have its issuer put it in as a text.").into();
            }
            Self::Team => "No team that this token names may call here. Ask whoever runs this service to let it in.",
        }
        .into()
    }
}
