//! Labels as types: each knows its name, its values, and what takes them away again, so that two which change places do not compile.
//!
//! ```
//! use streamgauge::telemetry::metrics::labels::{LabelSet, Named, Route, Upstream};
//!
//! fn series(route: Named<'_, Route>, upstream: Named<'_, Upstream>) {
//!     <(Route, Upstream)>::key((route, upstream));
//! }
//! ```
//!
//! ```compile_fail
//! use streamgauge::telemetry::metrics::labels::{LabelSet, Named, Route, Upstream};
//!
//! fn series(route: Named<'_, Route>, upstream: Named<'_, Upstream>) {
//!     <(Route, Upstream)>::key((upstream, route));
//! }
//! ```

use std::fmt;
use std::marker::PhantomData;

use http::StatusCode;

use crate::llm::UsageSource;
use crate::policy::affinity::AffinityResult;
use crate::policy::canary::{Fact, Kind};
use crate::policy::mirror::{Difference, Verdict};
use crate::telemetry::record::{ErrorType, Outcome, Phase};
use crate::words::worded;

/// The value of a label that does not apply.
pub(super) const NONE: &str = "none";

/// A label of a family of metrics.
pub trait Label: 'static {
    /// As scrapers read it.
    const NAME: &'static str;
    /// What takes values of it away again.
    const SCOPE: Scope = Scope::Constant;
    /// What is written for it.
    type Value<'v>: Value + 'v;
}

/// A value of a label. No two labels of one family have the same type of values.
pub trait Value: Copy {
    /// As scrapers read it.
    fn text(&self) -> &str;
}

/// What a label's values are names of. When one is gone, so are its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Route,
    Upstream,
    Variant,
    Limit,
    Model,
    Team,
    /// Words of this program, or names whose owner removes their series.
    Constant,
}

/// The labels of one family, in the order in which they are written.
pub trait LabelSet: 'static {
    /// The labels' names.
    const NAMES: &'static [&'static str];
    /// What takes series away, by label.
    const SCOPES: &'static [Scope];
    /// A value for each label.
    type Values<'v>;
    /// The same values, kept.
    type Key: Ord + Clone + AsRef<[Box<str>]> + Send + Sync;

    /// Keeps values, in the labels' order.
    fn key(values: Self::Values<'_>) -> Self::Key;

    /// The types of the values.
    #[cfg(test)]
    fn types() -> Vec<std::any::TypeId>;
}

macro_rules! label_sets {
    ($($count:literal: $($label:ident)*;)+) => {$(
        impl<$($label: Label),*> LabelSet for ($($label,)*) {
            const NAMES: &'static [&'static str] = &[$($label::NAME),*];
            const SCOPES: &'static [Scope] = &[$($label::SCOPE),*];
            type Values<'v> = ($($label::Value<'v>,)*);
            type Key = [Box<str>; $count];

            #[expect(non_snake_case, reason = "a value is called as its label's type")]
            fn key(values: Self::Values<'_>) -> Self::Key {
                let ($($label,)*) = values;
                [$($label.text().into()),*]
            }

            #[cfg(test)]
            fn types() -> Vec<std::any::TypeId> {
                vec![$(std::any::TypeId::of::<$label::Value<'static>>()),*]
            }
        }
    )+};
}

impl LabelSet for () {
    const NAMES: &'static [&'static str] = &[];
    const SCOPES: &'static [Scope] = &[];
    type Values<'v> = ();
    type Key = [Box<str>; 0];

    fn key((): ()) -> Self::Key {
        []
    }

    #[cfg(test)]
    fn types() -> Vec<std::any::TypeId> {
        Vec::new()
    }
}

label_sets! {
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    6: A B C D E F;
    7: A B C D E F G;
}

/// A name that is a value of the label `L`. Only what bounds the names of that label makes one.
pub struct Named<'v, L> {
    text: &'v str,
    label: PhantomData<fn() -> L>,
}

impl<'v, L> Named<'v, L> {
    /// The value where there is no name.
    pub(super) const NONE: Self = Self::bounded(NONE);

    /// A name out of a set that has a bound: to be called where that bound is kept.
    pub(super) const fn bounded(text: &'v str) -> Self {
        Self { text, label: PhantomData }
    }

    pub(super) fn as_str(self) -> &'v str {
        self.text
    }

    pub(super) fn keep(self) -> Kept<L> {
        Kept { text: self.text.into(), label: PhantomData }
    }
}

impl<'v> Named<'v, Upstream> {
    pub(super) fn replaced(self) -> Named<'v, ReplacedUpstream> {
        Named::bounded(self.text)
    }

    pub(super) fn replacing(self) -> Named<'v, ReplacingUpstream> {
        Named::bounded(self.text)
    }
}

impl<L> Clone for Named<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Named<'_, L> {}

impl<L> PartialEq for Named<'_, L> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<L> Eq for Named<'_, L> {}

impl<L> fmt::Debug for Named<'_, L> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(to)
    }
}

impl<L> Value for Named<'_, L> {
    fn text(&self) -> &str {
        self.text
    }
}

/// A [`Named`] that lives as long as its owner.
pub(super) struct Kept<L> {
    text: Box<str>,
    label: PhantomData<fn() -> L>,
}

impl<L> Kept<L> {
    pub(super) fn name(&self) -> Named<'_, L> {
        Named::bounded(&self.text)
    }
}

/// Labels whose values are names.
macro_rules! names {
    ($($(#[$doc:meta])+ $label:ident = $name:literal, $scope:ident, $values:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Debug)]
        pub enum $label {}

        impl Label for $label {
            const NAME: &'static str = $name;
            const SCOPE: Scope = Scope::$scope;
            type Value<'v> = Named<'v, $values>;
        }
    )+};
}

names! {
    /// A route of the configuration.
    Route = "route", Route, Route;
    /// An upstream of the configuration.
    Upstream = "upstream", Upstream, Upstream;
    /// The upstream whose attempt was replaced.
    ReplacedUpstream = "from", Upstream, ReplacedUpstream;
    /// The upstream whose attempt replaced another.
    ReplacingUpstream = "to", Upstream, ReplacingUpstream;
    /// A target of a route, by its name.
    Variant = "variant", Variant, Variant;
    /// An endpoint of an upstream.
    Endpoint = "endpoint", Constant, Endpoint;
    /// A limit of the configuration.
    Limit = "limit", Limit, Limit;
    /// A model that a client asked for, and an upstream answered as.
    Model = "model", Model, Model;
    /// [`Model`], as the GenAI conventions call it.
    GenAiModel = "gen_ai_request_model", Model, Model;
    /// Who runs the model: a name of the configuration, or one of the dialects'.
    Provider = "gen_ai_provider_name", Constant, Provider;
    /// The team of a key or token.
    Team = "team", Team, Team;
}

/// Labels whose values are a type's own words.
macro_rules! words {
    ($($label:ty = $name:literal;)+) => {$(
        impl Label for $label {
            const NAME: &'static str = $name;
            type Value<'v> = Self;
        }

        impl Value for $label {
            fn text(&self) -> &str {
                self.as_str()
            }
        }
    )+};
}

words! {
    Outcome = "outcome";
    Phase = "phase";
    Status = "status";
    Operation = "gen_ai_operation_name";
    ErrorLabel = "error_type";
    TokenType = "type";
    Modality = "gen_ai_token_modality";
    UsageSource = "usage_source";
    AttemptResult = "result";
    FailoverReason = "reason";
    HedgeResult = "result";
    AffinityResult = "result";
    Direction = "direction";
    LimitDecision = "decision";
    Settled = "result";
    LimiterMode = "mode";
    Fact = "fact";
    Kind = "decision";
    MirrorResult = "result";
    Difference = "fact";
    Side = "side";
    CheckResult = "result";
    Lever = "lever";
    ReloadResult = "result";
    FetchResult = "result";
    Full = "reason";
    Received = "received";
    Signal = "signal";
    Version = "version";
    Commit = "commit";
}

/// [`TokenType`], as the GenAI conventions call it.
#[derive(Debug)]
pub enum GenAiTokenType {}

impl Label for GenAiTokenType {
    const NAME: &'static str = "gen_ai_token_type";
    type Value<'v> = TokenType;
}

/// Words of this program, each an enum's variant: its label is never anything else.
macro_rules! closed {
    ($($(#[$doc:meta])+ $label:ident { $($(#[$about:meta])* $word:ident = $text:literal),+ })+) => {$(
        worded! {
            $(#[$doc])+
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $label { $($(#[$about])* $word = $text),+ }
        }
    )+};
}

closed! {
    /// `gen_ai.token.modality`. Providers tell sound apart, as it has another price; what is in the rest they do not say.
    Modality { Unknown = "unknown", Audio = "audio" }
    /// What kind of tokens are counted: no token is of two.
    TokenType { Input = "input", Output = "output" }
    /// Who sent a WebSocket message to whom.
    Direction { FromClient = "from_client", ToClient = "to_client" }
    /// What became of reserved tokens at a request's end.
    Settled { Charged = "charged", Returned = "returned" }
    /// Whose answer of a comparison it is: the client's, or its copy's.
    Side { Primary = "primary", Mirror = "shadow" }
    /// What became of a configuration that was read anew.
    ReloadResult { Ok = "ok", Rejected = "rejected" }
    /// What became of a fetch of keys.
    FetchResult { Ok = "ok", Failed = "failed" }
    /// How asking a second upstream at the same time went.
    HedgeResult {
        /// The second one's answer was passed on.
        Won = "won",
        /// The first one's was.
        Lost = "lost",
        /// Neither had one.
        Failed = "failed"
    }
    /// Which places are taken, where there is none for a connection or a request.
    Full {
        /// All that there are.
        All = "max_connections",
        /// Those that one client address may take.
        Address = "address_share"
    }
    /// What had come of a request's head when its time was up.
    Received {
        Part = "part",
        /// A new connection on which nothing was sent: a browser's in advance, or one that looks whether the port is open.
        Nothing = "nothing"
    }
    /// How an active health check ended.
    CheckResult {
        /// A status from 200 to 399 came in time.
        Healthy = "healthy",
        /// Another status came.
        Status = "status",
        /// No answer: no connection, or one that broke.
        Unreachable = "unreachable",
        /// No answer in time.
        Timeout = "timeout"
    }
}

/// Constants of this program, which no enum lists: each is made in one place, of a text that is written there.
macro_rules! constants {
    ($($(#[$doc:meta])+ $label:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $label(pub(super) &'static str);

        impl $label {
            /// As scrapers read it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                self.0
            }
        }
    )+};
}

constants! {
    /// What a request asks a model for.
    Operation;
    /// Where limits are kept.
    LimiterMode;
    /// What a lever is set on.
    Lever;
    /// What kind of telemetry is lost.
    Signal;
    /// The version of this build.
    Version;
    /// The commit of this build.
    Commit;
    /// `admitted`, or the cap of a limit that refused.
    LimitDecision;
}

/// What went wrong, and the word where nothing did.
macro_rules! errors {
    ($($(#[$doc:meta])+ $label:ident else $none:expr;)+) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $label(pub Option<ErrorType>);

        impl $label {
            /// As scrapers read it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                self.0.map_or($none, ErrorType::as_str)
            }
        }
    )+};
}

errors! {
    /// What went wrong with a request; empty on success.
    ErrorLabel else "";
    /// What went wrong with an attempt, or `ok`.
    AttemptResult else "ok";
    /// What was wrong with an attempt that another replaced.
    FailoverReason else NONE;
}

/// What came of a request that was drawn to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorResult {
    Compared(Verdict),
    /// No copy was made, or none compared.
    Skipped,
}

impl MirrorResult {
    /// As scrapers read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compared(verdict) => verdict.as_str(),
            Self::Skipped => "skipped",
        }
    }
}

/// The status of an answer: a registered code as it is, any other by its class, as `4xx`; so there are few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(StatusText);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatusText {
    Registered(StatusCode),
    Word(&'static str),
}

impl Status {
    pub(super) fn new(status: Option<u16>) -> Self {
        let Some(code) = status else { return Self(StatusText::Word(NONE)) };
        let is_registered = matches!(code, 100..=103 | 200..=208 | 226 | 300..=308 | 400..=431 | 451 | 499..=511 | 529);
        Self(match StatusCode::from_u16(code) {
            Ok(code) if is_registered => StatusText::Registered(code),
            Ok(code) => StatusText::Word(class(code)),
            Err(_) => StatusText::Word("other"),
        })
    }

    /// Whether the code is one of those that are labels as they are.
    pub(super) fn is_registered(self) -> bool {
        matches!(self.0, StatusText::Registered(_))
    }

    /// As scrapers read it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            StatusText::Registered(code) => code.as_str(),
            StatusText::Word(word) => word,
        }
    }
}

fn class(code: StatusCode) -> &'static str {
    match code.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        6 => "6xx",
        7 => "7xx",
        8 => "8xx",
        _ => "9xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_few() {
        let mut labels: Vec<_> = (0..=u16::MAX).map(|status| Status::new(Some(status)).as_str().to_owned()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert!((60..90).contains(&labels.len()), "{}", labels.len());
        assert_eq!(Status::new(None).as_str(), "none");
        assert_eq!(Status::new(Some(200)).as_str(), "200");
        assert_eq!(Status::new(Some(418)).as_str(), "418");
        assert_eq!(Status::new(Some(599)).as_str(), "5xx");
        assert_eq!(Status::new(Some(7)).as_str(), "other");
    }

    #[test]
    fn a_key_keeps_the_values_in_the_labels_order() {
        type Labels = (Route, Upstream, AttemptResult);
        assert_eq!(Labels::NAMES, ["route", "upstream", "result"]);
        let key = Labels::key((Named::bounded("chat"), Named::NONE, AttemptResult(None)));
        assert_eq!(key.each_ref().map(|text| &**text), ["chat", "none", "ok"]);
    }
}
