//! Who may ask the admin address for what.
//!
//! On loopback every local program may ask; a web page in a local browser may not, neither by a name that it made point
//! here (DNS rebinding: the Host is looked at) nor by a form (the Origin is looked at). Off loopback a token is asked for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::secret::Secret;

/// What the decision rests on.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccessRequest<'a> {
    /// Each `Host` header.
    pub(super) hosts: &'a [&'a [u8]],
    pub(super) origin: Option<&'a [u8]>,
    /// What the browser says of the page that asks (`Sec-Fetch-Site`); scripts and old browsers say nothing.
    pub(super) site: Option<&'a [u8]>,
    /// A person followed a link or typed the address: no page reads the answer (`Sec-Fetch-Mode` and `-Dest`).
    pub(super) navigates: bool,
    pub(super) authorization: Option<&'a [u8]>,
    /// Another replica of the fleet signed the request, or somebody who says so; what was found of it.
    pub(super) signed: Option<Result<(), Denial>>,
    /// A cookie names somebody who has logged in.
    pub(super) session: bool,
    /// The request changes something.
    pub(super) changes: bool,
    /// Everybody may know the answer.
    pub(super) public: bool,
}

/// How and when a request came.
pub(super) struct Came {
    /// From where; `None` on a unix socket.
    pub(super) address: Option<IpAddr>,
    /// To which address of this machine.
    pub(super) at: Option<SocketAddr>,
    /// Since 1970.
    pub(super) time: Duration,
}

/// How the admin address is guarded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access<'a> {
    /// Only this machine can reach the address.
    pub(super) local: bool,
    pub(super) token: Option<&'a Secret>,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    TwoHosts,
    ForeignHost,
    ForeignOrigin,
    ForeignPage,
    TooManyTries,
    NoToken,
    WrongToken,
    TokenNotSet,
    /// A signature of another replica cannot be looked at.
    NoFleetSecret,
    ForgedSignature,
    OldSignature,
    SignatureForAnother,
    NotForReplicas,
}

impl Denial {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::TwoHosts => 400,
            Self::ForeignHost | Self::ForeignOrigin | Self::ForeignPage | Self::TokenNotSet | Self::NotForReplicas => {
                403
            }
            Self::TooManyTries => 429,
            Self::NoToken | Self::WrongToken => 401,
            Self::NoFleetSecret | Self::ForgedSignature | Self::OldSignature | Self::SignatureForAnother => 401,
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::TwoHosts => "the request has more than one Host header",
            Self::ForeignHost => {
                "this address answers to localhost and to IP addresses only: a web page may not read it by another name"
            }
            Self::ForeignOrigin => "a page of another origin may not change anything here",
            Self::ForeignPage => "a page of another site may not load anything from here",
            Self::TooManyTries => "too many wrong tokens came from this address: wait, see Retry-After",
            Self::NoToken => "send the admin token: `Authorization: Bearer …`",
            Self::WrongToken => "this is not the admin token",
            Self::NoFleetSecret => {
                "this replica has no `secret_env` in [fleet], so it answers no other replica: give it the secret of the others"
            }
            Self::ForgedSignature => {
                "this is not signed with the secret of this replica's fleet: give all replicas the same [fleet] `name` and `secret_env`"
            }
            Self::OldSignature => {
                "the signature is of another minute: the clocks of the replicas differ by more than that"
            }
            Self::SignatureForAnother => {
                "the signature is for another address: give this replica `advertise` in [fleet], as the others know it"
            }
            Self::NotForReplicas => "replicas may read one another's views with GET, and nothing else",
            Self::TokenNotSet => "no admin token is set, so this address answers /metrics, /healthz and /readyz only",
        }
    }
}

impl Access<'_> {
    /// Whether the request may be answered.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn check(&self, asked: &AccessRequest<'_>) -> Result<(), Denial> {
        let host = match asked.hosts {
            [] => None,
            [host] => Some(*host),
            _ => return Err(Denial::TwoHosts),
        };
        // What has no such header is no page of a browser of these years.
        let foreign_page = asked.site.is_some_and(|site| site != b"same-origin" && site != b"none");
        if foreign_page && (asked.changes || !asked.navigates) {
            return Err(Denial::ForeignPage);
        }
        if asked.changes && !same_origin(asked.origin, host) {
            return Err(Denial::ForeignOrigin);
        }
        // It is for nothing that a token would open besides.
        if let Some(signed) = asked.signed {
            return signed;
        }
        if asked.public {
            // Off loopback names are many; on loopback another name is a web page's trick (DNS rebinding).
            let is_foreign = self.local && host.is_some_and(|host| !is_this_machine(host));
            return if is_foreign { Err(Denial::ForeignHost) } else { Ok(()) };
        }
        if self.local {
            // Browsers always send a Host: what has none is no page.
            return if host.is_none_or(is_this_machine) { Ok(()) } else { Err(Denial::ForeignHost) };
        }
        let token = self.token.ok_or(Denial::TokenNotSet)?;
        // A browser sends its cookie by itself, but never a change without its Origin.
        if asked.session && asked.authorization.is_none() {
            return if asked.changes && asked.origin.is_none() { Err(Denial::ForeignOrigin) } else { Ok(()) };
        }
        let sent = asked.authorization.and_then(bearer).ok_or(Denial::NoToken)?;
        if equal(sent, token.expose().as_bytes()) { Ok(()) } else { Err(Denial::WrongToken) }
    }
}

/// An Origin, where there is one, must name the very host that was asked.
fn same_origin(origin: Option<&[u8]>, host: Option<&[u8]>) -> bool {
    let Some(origin) = origin else { return true };
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

fn is_this_machine(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = without_port(host);
    let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    literal.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

/// Compares in a time that tells nothing but the lengths.
pub(super) fn equal(left: &[u8], right: &[u8]) -> bool {
    let difference = left.iter().zip(right).fold(0, |found, (a, b)| std::hint::black_box(found | (a ^ b)));
    left.len() == right.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(hosts: &'a [&'a [u8]]) -> AccessRequest<'a> {
        AccessRequest {
            hosts,
            origin: None,
            site: None,
            navigates: false,
            authorization: None,
            signed: None,
            session: false,
            changes: false,
            public: false,
        }
    }

    const LOCAL: Access<'static> = Access { local: true, token: None };

    #[test]
    fn on_loopback_only_this_machine_s_names_are_answered() {
        let ours: [&[u8]; 6] =
            [b"127.0.0.1:9090", b"localhost:9090", b"LOCALHOST", b"[::1]:9090", b"[::1]", b"10.0.0.7"];
        for host in ours {
            assert_eq!(LOCAL.check(&asked(&[host])), Ok(()), "{}", String::from_utf8_lossy(host));
        }
        let theirs: [&[u8]; 5] = [b"evil.example:9090", b"localhost.evil.example", b"127.0.0.1.nip.io", b"", b"\xff"];
        for host in theirs {
            assert_eq!(LOCAL.check(&asked(&[host])), Err(Denial::ForeignHost), "{}", String::from_utf8_lossy(host));
        }
        assert_eq!(LOCAL.check(&asked(&[])), Ok(()));
        assert_eq!(LOCAL.check(&asked(&[b"localhost", b"localhost"])), Err(Denial::TwoHosts));
    }

    #[test]
    fn a_foreign_page_changes_nothing() {
        let hosts: [&[u8]; 1] = [b"localhost:9090"];
        let from = |origin| LOCAL.check(&AccessRequest { origin, changes: true, ..asked(&hosts) });
        assert_eq!(from(None), Ok(()));
        assert_eq!(from(Some(b"http://localhost:9090")), Ok(()));
        let foreign: [&[u8]; 4] = [b"https://evil.example", b"null", b"http://localhost:3000", b""];
        for origin in foreign {
            assert_eq!(from(Some(origin)), Err(Denial::ForeignOrigin), "{}", String::from_utf8_lossy(origin));
        }
    }

    #[test]
    fn off_loopback_the_token_is_asked_for() {
        let token = Secret::new("open-sesame".to_owned());
        let gate = Access { local: false, token: Some(&token) };
        let hosts: [&[u8]; 1] = [b"gauge.example"];
        let with = |authorization| gate.check(&AccessRequest { authorization, ..asked(&hosts) });
        assert_eq!(with(None), Err(Denial::NoToken));
        assert_eq!(with(Some(b"Basic b3Blbg==")), Err(Denial::NoToken));
        let wrong: [&[u8]; 4] = [b"Bearer open-sesam", b"Bearer open-sesame!", b"Bearer Open-sesame", b"Bearer "];
        for authorization in wrong {
            assert_eq!(with(Some(authorization)), Err(Denial::WrongToken));
        }
        assert_eq!(with(Some(b"bearer open-sesame")), Ok(()));
        assert_eq!(gate.check(&AccessRequest { public: true, ..asked(&hosts) }), Ok(()));
        let session = AccessRequest { session: true, ..asked(&hosts) };
        assert_eq!(gate.check(&session), Ok(()));
        let change = |origin| gate.check(&AccessRequest { changes: true, origin, ..session });
        assert_eq!(change(Some(b"https://gauge.example")), Ok(()));
        assert_eq!(change(Some(b"https://evil.example")), Err(Denial::ForeignOrigin));
        assert_eq!(change(None), Err(Denial::ForeignOrigin), "browsers name the page");
        assert_eq!(
            gate.check(&AccessRequest { authorization: Some(b"Bearer no"), ..session }),
            Err(Denial::WrongToken)
        );
        let unset = Access { local: false, token: None };
        assert_eq!(unset.check(&asked(&hosts)), Err(Denial::TokenNotSet));
    }

    #[test]
    fn what_claims_to_be_signed_is_judged_by_that_alone() {
        let token = Secret::new("open-sesame-open-sesame".to_owned());
        let hosts: [&[u8]; 1] = [b"gauge.example"];
        for local in [true, false] {
            let gate = Access { local, token: Some(&token) };
            for signed in [Ok(()), Err(Denial::ForgedSignature), Err(Denial::OldSignature)] {
                let request = AccessRequest { signed: Some(signed), session: true, ..asked(&hosts) };
                assert_eq!(gate.check(&request), signed);
                let by_page = AccessRequest { site: Some(b"cross-site"), ..request };
                assert_eq!(gate.check(&by_page), Err(Denial::ForeignPage));
            }
        }
        assert_eq!(
            [Denial::ForgedSignature, Denial::OldSignature, Denial::NoFleetSecret].map(Denial::status),
            [401; 3]
        );
    }

    #[test]
    fn a_page_of_another_site_may_not_even_load_what_is_public() {
        let hosts: [&[u8]; 1] = [b"localhost:9090"];
        for local in [true, false] {
            let token = Secret::new("open-sesame-open-sesame".to_owned());
            let gate = Access { local, token: Some(&token) };
            let from = |site: &'static [u8]| AccessRequest { site: Some(site), public: true, ..asked(&hosts) };
            for site in [&b"cross-site"[..], b"same-site"] {
                assert_eq!(gate.check(&from(site)), Err(Denial::ForeignPage));
                assert_eq!(
                    gate.check(&AccessRequest { navigates: true, ..from(site) }),
                    Ok(()),
                    "a link from a dashboard"
                );
                let form = AccessRequest { navigates: true, changes: true, ..from(site) };
                assert_eq!(gate.check(&form), Err(Denial::ForeignPage));
            }
            for site in [&b"same-origin"[..], b"none"] {
                assert_eq!(gate.check(&from(site)), Ok(()));
            }
        }
    }
}
