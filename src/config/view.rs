//! What is shown of checked settings (`/api/config`): the words of the file, and nothing that is secret.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Values for which serde has other words than the file, or none.
pub trait Shown {
    /// # Errors
    /// Those of `to`.
    fn shown<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error>;
}

impl Shown for Duration {
    /// "15s", or "250ms" where it is no whole number of seconds.
    fn shown<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.subsec_millis() {
            0 => to.collect_str(&format_args!("{}s", self.as_secs())),
            _ => to.collect_str(&format_args!("{}ms", self.as_millis())),
        }
    }
}

/// As what it shares.
impl<T: Serialize + ?Sized> Shown for Arc<T> {
    fn shown<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, to)
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(AsShown).serialize(to)
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(AsShown))
    }
}

struct AsShown<'a, T>(&'a T);

impl<T: Shown> Serialize for AsShown<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.shown(to)
    }
}

/// Serialises types as they are displayed.
macro_rules! serialize_as_displayed {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    )+};
}

/// Displays words as they are written in the file.
macro_rules! display_as_serialized {
    ($($name:ty),+) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                serde::Serialize::serialize(self, f)
            }
        }
    )+};
}

pub(super) use {display_as_serialized, serialize_as_displayed};

/// A URL without what stands before `@` and after `?`.
pub struct PlainUrl<'a>(pub &'a str);

impl fmt::Display for PlainUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.0.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = url.split_once("://") else { return f.write_str(url) };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        write!(f, "{scheme}://{host}{path}")
    }
}

serialize_as_displayed!(PlainUrl<'_>);

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
