//! Levers: what a person takes out of service by hand, and puts back, whatever the configuration says. As nginx's `down` and
//! HAProxy's `drain` and `maint`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::worded;

/// Levers that are set at one time: a file is the place for more.
pub const SET_MAX: usize = 1_024;

/// Longest reason, in bytes.
pub const REASON_MAX: usize = 256;

/// Names that are listed where one is not known.
const LISTED: usize = 20;

/// The form of [`Saved`]: another is not read.
const VERSION: u32 = 1;

/// What a lever acts on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Lever {
    /// All endpoints of an upstream, those that come later too.
    Upstream { upstream: String },
    /// One endpoint, or one address of an endpoint that is a name.
    Endpoint { upstream: String, endpoint: String },
    /// One target or fallback of one route.
    Target { route: String, target: String },
    /// An API key, by its public id.
    Key { key: String },
}

impl Lever {
    /// All kinds, as labels have them.
    pub const KINDS: [&'static str; 4] = ["upstream", "endpoint", "target", "key"];

    /// The word in the admin API, logs and labels.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Upstream { .. } => "upstream",
            Self::Endpoint { .. } => "endpoint",
            Self::Target { .. } => "target",
            Self::Key { .. } => "key",
        }
    }

    /// The names in it: upstream, endpoint, route, target and key.
    #[must_use]
    pub fn names(&self) -> [Option<&str>; 5] {
        match self {
            Self::Upstream { upstream } => [Some(upstream), None, None, None, None],
            Self::Endpoint { upstream, endpoint } => [Some(upstream), Some(endpoint), None, None, None],
            Self::Target { route, target } => [None, None, Some(route), Some(target), None],
            Self::Key { key } => [None, None, None, None, Some(key)],
        }
    }

    /// What is typed after the command to undo it.
    #[must_use]
    pub fn typed(&self) -> String {
        match self {
            Self::Upstream { upstream } => upstream.clone(),
            Self::Endpoint { upstream, endpoint } => format!("{upstream}/{endpoint}"),
            Self::Target { route, target } => format!("{target} --route {route}"),
            Self::Key { key } => key.clone(),
        }
    }
}

impl fmt::Display for Lever {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream { upstream } => write!(f, "upstream `{upstream}`"),
            Self::Endpoint { upstream, endpoint } => write!(f, "endpoint `{endpoint}` of upstream `{upstream}`"),
            Self::Target { route, target } => write!(f, "target `{target}` of route `{route}`"),
            Self::Key { key } => write!(f, "key `{key}`"),
        }
    }
}

worded! {
    /// What a lever does.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Setting {
        /// No new request; running ones go on to their end. Health checks go on.
        Drained = "drained",
        /// The same, and no health check either: the machine may be gone.
        Disabled = "disabled",
        /// The key lets nobody in any more.
        Revoked = "revoked",
    }
}

worded! {
    /// What a person asks for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Command {
        Drain = "drain",
        Disable = "disable",
        /// Undoes either.
        Enable = "enable",
        Revoke = "revoke",
        /// Undoes that.
        Restore = "restore",
    }
}

impl Command {
    /// What a lever is set to by it; `None`: it is let go.
    #[must_use]
    pub fn setting(self) -> Option<Setting> {
        match self {
            Self::Drain => Some(Setting::Drained),
            Self::Disable => Some(Setting::Disabled),
            Self::Revoke => Some(Setting::Revoked),
            Self::Enable | Self::Restore => None,
        }
    }

    /// Whether it is about API keys.
    #[must_use]
    pub fn is_about_keys(self) -> bool {
        matches!(self, Self::Revoke | Self::Restore)
    }
}

/// One lever as it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    pub setting: Setting,
    /// Since 1970.
    pub since: Duration,
    /// Who did it, as far as the admin address knows.
    pub by: String,
    /// Why, in that person's words.
    pub reason: Option<String>,
}

/// All levers that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulled(BTreeMap<Lever, Pull>);

impl Pulled {
    pub fn get(&self, lever: &Lever) -> Option<&Pull> {
        self.0.get(lever)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Lever, &Pull)> {
        self.0.iter()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a lever, or sets it anew: drained to disabled and back.
    ///
    /// # Errors
    /// It is set so already, or there are too many.
    pub fn set(&mut self, lever: &Lever, pull: Pull) -> Result<(), Refusal> {
        match self.0.get(lever) {
            Some(known) if known.setting == pull.setting => return Err(Refusal::Set(lever.clone(), pull.setting)),
            None if self.0.len() >= SET_MAX => return Err(Refusal::TooMany),
            _ => {}
        }
        self.0.insert(lever.clone(), pull);
        Ok(())
    }

    /// Lets a lever go, and with an upstream's those of its endpoints. Returns those that were set.
    ///
    /// # Errors
    /// None was set; the words say which lever holds it instead, where one does.
    pub fn release(&mut self, lever: &Lever) -> Result<Vec<Lever>, Refusal> {
        let is_meant = |other: &Lever| match (lever, other) {
            (Lever::Upstream { upstream }, Lever::Endpoint { upstream: of, .. }) => upstream == of,
            _ => lever == other,
        };
        let gone: Vec<Lever> = self.0.keys().filter(|other| is_meant(other)).cloned().collect();
        if !gone.is_empty() {
            self.0.retain(|other, _| !gone.contains(other));
            return Ok(gone);
        }
        if let Lever::Endpoint { upstream, .. } = lever {
            let whole = Lever::Upstream { upstream: upstream.clone() };
            if let Some(pull) = self.0.get(&whole) {
                return Err(Refusal::HeldBy(lever.clone(), whole, pull.setting));
            }
        }
        Err(Refusal::NotSet(lever.clone()))
    }

    /// The ids of the keys that are revoked.
    pub fn revoked(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|lever| match lever {
            Lever::Key { key } => Some(key.as_str()),
            _ => None,
        })
    }
}

/// Why a command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} is {word} already", word = .1.as_str())]
    Set(Lever, Setting),
    #[error("{}", not_set(.0))]
    NotSet(Lever),
    #[error("{0} is out of service with the whole {1}, which is {word}: `streamgauge enable {typed}`", word = .2.as_str(), typed = .1.typed())]
    HeldBy(Lever, Lever, Setting),
    #[error("{SET_MAX} levers are set, and that is all there is room for: let some go, or change the configuration")]
    TooMany,
    /// What was named is nothing, or several things; in words.
    #[error("{0}")]
    Unknown(String),
    /// Another process has the sockets by now, and its own levers.
    #[error("this process hands over to a new one: ask again in 3 s")]
    HandingOver,
}

fn not_set(lever: &Lever) -> String {
    match lever {
        Lever::Key { .. } => format!("{lever} is not revoked by hand"),
        _ => format!("{lever} is in service: nobody took it out by hand"),
    }
}

/// The names that the configuration in effect has.
#[derive(Debug, Default)]
pub struct Names<'a> {
    /// With what can be named of each: endpoints, and the addresses of those that are names.
    pub upstreams: Vec<(&'a str, Vec<String>)>,
    /// With their targets and fallbacks.
    pub routes: Vec<(&'a str, Vec<&'a str>)>,
    pub keys: Vec<KeyName<'a>>,
}

/// What an API key is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyName<'a> {
    pub id: &'a str,
    pub user: Option<&'a str>,
    pub team: Option<&'a str>,
}

impl Names<'_> {
    /// What `typed` means: `UPSTREAM` or `UPSTREAM/ENDPOINT`, with a route one of its targets.
    ///
    /// # Errors
    /// It means nothing; the words list what there is.
    pub fn place(&self, typed: &str, route: Option<&str>) -> Result<Lever, Refusal> {
        if let Some(route) = route {
            return self.target(typed, route);
        }
        if let Some((upstream, _)) = self.upstreams.iter().find(|(upstream, _)| *upstream == typed) {
            return Ok(Lever::Upstream { upstream: (*upstream).to_owned() });
        }
        // Both names may have slashes in them.
        let inside = |(upstream, endpoints): &'_ &(&str, Vec<String>)| {
            Some((typed.strip_prefix(upstream)?.strip_prefix('/')?, endpoints.clone()))
        };
        let Some((upstream, (endpoint, endpoints))) =
            self.upstreams.iter().find_map(|entry| inside(&entry).map(|found| (entry.0, found)))
        else {
            let names = self.upstreams.iter().map(|(name, _)| *name);
            return Err(unknown("there is no upstream", typed, "upstreams", names));
        };
        if endpoints.iter().any(|known| known == endpoint) {
            return Ok(Lever::Endpoint { upstream: upstream.to_owned(), endpoint: endpoint.to_owned() });
        }
        let what = format!("upstream `{upstream}` has no endpoint");
        Err(unknown(&what, endpoint, "its endpoints", endpoints.iter().map(String::as_str)))
    }

    fn target(&self, typed: &str, route: &str) -> Result<Lever, Refusal> {
        let Some((route, targets)) = self.routes.iter().find(|(name, _)| *name == route) else {
            return Err(unknown("there is no route", route, "routes", self.routes.iter().map(|(name, _)| *name)));
        };
        if targets.contains(&typed) {
            return Ok(Lever::Target { route: (*route).to_owned(), target: typed.to_owned() });
        }
        let what = format!("route `{route}` has no target or fallback");
        Err(unknown(&what, typed, "it has", targets.iter().copied()))
    }

    /// The key that `typed` means: by its public id, or by a user or team that has just this one.
    ///
    /// # Errors
    /// It means none, or several; the words list their ids.
    pub fn key(&self, typed: &str) -> Result<Lever, Refusal> {
        let lever = |key: &KeyName<'_>| Lever::Key { key: key.id.to_owned() };
        if let Some(key) = self.keys.iter().find(|key| key.id == typed) {
            return Ok(lever(key));
        }
        let mut named: Vec<&KeyName<'_>> = self.keys.iter().filter(|key| key.user == Some(typed)).collect();
        if named.is_empty() {
            named = self.keys.iter().filter(|key| key.user.is_none() && key.team == Some(typed)).collect();
        }
        match named.as_slice() {
            [only] => Ok(lever(only)),
            [] => {
                let names = self.keys.iter().map(|key| key.user.or(key.team).unwrap_or(key.id));
                Err(unknown("there is no API key of", typed, "keys, by user or team", names))
            }
            several => {
                let ids: Vec<&str> = several.iter().take(LISTED).map(|key| key.id).collect();
                let words = format!("`{typed}` has {} keys. Name one by its id: {}", several.len(), ids.join(", "));
                Err(Refusal::Unknown(words))
            }
        }
    }
}

fn unknown<'a>(what: &str, typed: &str, kind: &str, names: impl Iterator<Item = &'a str>) -> Refusal {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let typed: String = typed.chars().take(128).collect();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let list = match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    };
    Refusal::Unknown(format!("{what} `{typed}`; {kind}: {list}"))
}

/// All levers, as they are kept over a restart.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    version: u32,
    levers: Vec<SavedLever>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedLever {
    what: Lever,
    set: Pull,
}

impl Saved {
    #[must_use]
    pub fn of(pulled: &Pulled) -> Self {
        let levers = pulled.iter().map(|(what, set)| SavedLever { what: what.clone(), set: set.clone() }).collect();
        Self { version: VERSION, levers }
    }

    /// The levers as they were.
    ///
    /// # Errors
    /// What of it could not have been written by this version.
    pub fn read(json: &[u8]) -> Result<Pulled, String> {
        let saved: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if saved.version != VERSION {
            return Err(format!("it is of version {}, this program reads version {VERSION}", saved.version));
        }
        let fits = |lever: &SavedLever| {
            matches!(lever.what, Lever::Key { .. }) == (lever.set.setting == Setting::Revoked)
                && lever.set.reason.as_deref().is_none_or(is_reason)
        };
        if saved.levers.len() > SET_MAX || !saved.levers.iter().all(fits) {
            return Err("what it says of a lever cannot be".to_owned());
        }
        Ok(Pulled(saved.levers.into_iter().map(|lever| (lever.what, lever.set)).collect()))
    }
}

/// Whether a text can stand as a reason: short, and nothing that steers a terminal.
#[must_use]
pub fn is_reason(text: &str) -> bool {
    text.len() <= REASON_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
#[path = "levers_tests.rs"]
mod tests;
