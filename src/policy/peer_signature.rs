//! What a replica signs when it asks another one of its fleet for what that shows.
//!
//! The signature is of one path, one fleet, one minute and one replica: the address that was asked for, as `host:port`, and the one that was
//! connected to. Whoever is asked accepts what is for it alone, so a stranger who is asked by mistake can ask nobody with what it got.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};

use crate::config::secret::Secret;

/// The scheme of the `Authorization` header.
const SCHEME: &str = "Streamgauge-Fleet ";

/// How far the clocks of two replicas may differ, in minutes.
const MINUTES_APART: u64 = 1;

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name of the fleet.
    pub fleet: &'a str,
    /// With its query.
    pub path: &'a str,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// `host:port` as the asking replica knows it.
    pub by_name: &'a str,
    /// `address:port` that it is connected to.
    pub by_address: &'a str,
}

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is none, or with another secret, or of something else.
    Forged,
    /// It is of another minute.
    Old,
    /// It is for another replica.
    ForAnother,
}

/// The value of the `Authorization` header of a GET; `now` is the time since 1970. `None`: there is no cryptography to sign with.
pub fn header(secret: &Secret, question: Question<'_>, asked: Asked<'_>, now: Duration) -> Option<String> {
    let minute = minute(now);
    let Asked { by_name, by_address } = asked;
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    let signature = crypto::sign(message(question, asked, minute).as_bytes(), &key, Algorithm::HS256).ok()?;
    Some(format!("{SCHEME}minute={minute},to={by_name},at={by_address},signature={signature}"))
}

/// Whether an `Authorization` header is of this scheme.
pub fn is_signed(authorization: &[u8]) -> bool {
    authorization
        .split_at_checked(SCHEME.len())
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME.as_bytes()))
}

/// Whether a header of this scheme is right for the replica that `own` are the addresses of, as `host:port`.
///
/// # Errors
/// What is wrong with it.
pub fn check(
    secret: &Secret,
    question: Question<'_>,
    authorization: &[u8],
    own: &[String],
    now: Duration,
) -> Result<(), Wrong> {
    let (asked, signed, signature) = read(authorization).ok_or(Wrong::Forged)?;
    let key = DecodingKey::from_secret(secret.expose().as_bytes());
    // It is compared in a time that tells nothing of how much of it is right.
    let is_right = crypto::verify(signature, message(question, asked, signed).as_bytes(), &key, Algorithm::HS256);
    if !is_right.unwrap_or(false) {
        return Err(Wrong::Forged);
    }
    if signed.abs_diff(minute(now)) > MINUTES_APART {
        return Err(Wrong::Old);
    }
    let is_ours = own.iter().any(|own| own == asked.by_name || own == asked.by_address);
    if is_ours { Ok(()) } else { Err(Wrong::ForAnother) }
}

/// Nothing of it can hold a line break.
fn message(Question { fleet, path }: Question<'_>, asked: Asked<'_>, minute: u64) -> String {
    format!("GET\n{fleet}\n{path}\n{}\n{}\n{minute}", asked.by_name, asked.by_address)
}

fn minute(now: Duration) -> u64 {
    now.as_secs() / 60
}

/// Who is asked, the minute and the signature.
fn read(authorization: &[u8]) -> Option<(Asked<'_>, u64, &str)> {
    let text = std::str::from_utf8(authorization).ok()?.get(SCHEME.len()..)?;
    let mut parts = text.split(',');
    let mut next = |key: &str| parts.next()?.trim().strip_prefix(key)?.strip_prefix('=');
    let minute = next("minute")?.parse().ok()?;
    let asked = Asked { by_name: next("to")?, by_address: next("at")? };
    let signature = next("signature")?;
    parts.next().is_none().then_some((asked, minute, signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question<'static> = Question { fleet: "f", path: "/api/streams?x=1" };
    const ASKED: Asked<'static> = Asked { by_name: "replica-1:9090", by_address: "10.0.0.7:9090" };
    const NOW: Duration = Duration::from_secs(1_700_000_040);

    fn secret() -> Secret {
        Secret::new("0123456789abcdef0123456789abcdef".to_owned())
    }

    fn checked(header: &str, question: Question<'_>, own: &str, now: Duration) -> Result<(), Wrong> {
        check(&secret(), question, header.as_bytes(), &["other:1".to_owned(), own.to_owned()], now)
    }

    #[test]
    fn what_was_signed_is_accepted_by_whom_it_is_for_and_for_two_minutes() {
        let header = header(&secret(), QUESTION, ASKED, NOW).unwrap();
        assert!(is_signed(header.as_bytes()) && !is_signed(b"Bearer x") && !is_signed(b"Stream"));
        assert!(!header.contains("0123456789abcdef"), "{header}");
        for own in ["replica-1:9090", "10.0.0.7:9090"] {
            assert_eq!(checked(&header, QUESTION, own, NOW), Ok(()));
        }
        assert_eq!(checked(&header, QUESTION, "10.0.0.8:9090", NOW), Err(Wrong::ForAnother));
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(checked(&header, QUESTION, ASKED.by_name, NOW + minutes(1)), Ok(()));
        assert_eq!(checked(&header, QUESTION, ASKED.by_name, NOW - minutes(1)), Ok(()));
        assert_eq!(checked(&header, QUESTION, ASKED.by_name, NOW + minutes(2)), Err(Wrong::Old));
        assert_eq!(checked(&header, QUESTION, ASKED.by_name, NOW - minutes(2)), Err(Wrong::Old));
    }

    #[test]
    fn what_was_not_signed_is_refused() {
        let good = header(&secret(), QUESTION, ASKED, NOW).unwrap();
        let other = Secret::new("0123456789abcdef0123456789abcdeF".to_owned());
        let of_other = header(&other, QUESTION, ASKED, NOW).unwrap();
        let (claims, signature) = good.rsplit_once('=').unwrap();
        let forged = [
            of_other,
            good.replace("replica-1", "replica-2"),
            good.replace("10.0.0.7", "10.0.0.8"),
            good.replace("minute=", "minute=1"),
            format!("{claims}={}", &signature[1..]),
            format!("{claims}="),
            format!("{good},more=1"),
            format!("{SCHEME}minute=1"),
            SCHEME.to_owned(),
        ];
        for header in forged {
            assert_eq!(checked(&header, QUESTION, ASKED.by_name, NOW), Err(Wrong::Forged), "{header}");
        }
        assert_eq!(check(&secret(), QUESTION, b"Streamgauge-Fleet \xff", &[], NOW), Err(Wrong::Forged));
        for question in [Question { path: "/api/streams", ..QUESTION }, Question { fleet: "g", ..QUESTION }] {
            assert_eq!(checked(&good, question, ASKED.by_name, NOW), Err(Wrong::Forged));
        }
    }
}
