//! Who logged in with a browser off loopback. A session knows the token only by its digest, and ends with it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::access::equal;
use crate::config::secret::Secret;

/// The cookie that names a session.
pub(super) const COOKIE: &str = "streamgauge_session";

/// How long a session lasts.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Sessions at once; the oldest gives way.
const SESSIONS_MAX: usize = 64;

/// The sessions of this process.
#[derive(Default)]
pub(super) struct Sessions(Mutex<VecDeque<Session>>);

/// What is kept would not let anybody in.
struct Session {
    id: [u8; 32],
    token: [u8; 32],
    until: Instant,
}

impl Sessions {
    /// Begins a session of somebody who sent `token`, and returns what its cookie holds.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn begin(&self, token: &Secret, now: Instant) -> Result<String, &'static str> {
        let mut random = [0; 32];
        let provider = rustls::crypto::ring::default_provider();
        provider.secure_random.fill(&mut random).map_err(|_| "this system gives no random numbers")?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.lock();
        sessions.retain(|session| session.until > now);
        if sessions.len() == SESSIONS_MAX {
            sessions.pop_front();
        }
        sessions.push_back(Session {
            id: digest(id.as_bytes()),
            token: digest(token.expose().as_bytes()),
            until: now + LIFETIME,
        });
        Ok(id)
    }

    /// Whether one of the `Cookie` headers names a session that `token` began and that is not over.
    pub(super) fn knows(&self, cookies: &[&[u8]], token: &Secret, now: Instant) -> bool {
        let Some(id) = id(cookies).map(digest) else { return false };
        let token = digest(token.expose().as_bytes());
        self.lock()
            .iter()
            .any(|session| equal(&session.id, &id) && equal(&session.token, &token) && session.until > now)
    }

    /// Ends the session that the cookies name, if there is one.
    pub(super) fn end(&self, cookies: &[&[u8]]) {
        if let Some(id) = id(cookies).map(digest) {
            self.lock().retain(|session| !equal(&session.id, &id));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The session's id among the cookies.
fn id<'a>(cookies: &[&'a [u8]]) -> Option<&'a [u8]> {
    let mut pairs = cookies.iter().flat_map(|header| header.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_session_lasts_as_long_as_its_token_and_its_time() {
        let (sessions, now, ours) = (Sessions::default(), Instant::now(), token("open-sesame"));
        let id = sessions.begin(&ours, now).unwrap();
        let cookie = format!("a=b; {COOKIE}={id}; c=d");
        let cookies: [&[u8]; 2] = [b"x=y", cookie.as_bytes()];
        assert!(sessions.knows(&cookies, &ours, now + LIFETIME / 2));
        assert!(!sessions.knows(&cookies, &ours, now + LIFETIME));
        assert!(!sessions.knows(&cookies, &token("another"), now), "the token was changed");
        let other = cookie.replace(&id, &"0".repeat(64));
        let others: [&[u8]; 4] = [b"", COOKIE.as_bytes(), b"streamgauge_session=", other.as_bytes()];
        for cookie in others {
            assert!(!sessions.knows(&[cookie], &ours, now), "{}", String::from_utf8_lossy(cookie));
        }
        sessions.end(&cookies);
        assert!(!sessions.knows(&cookies, &ours, now));
    }

    #[test]
    fn sessions_are_bounded() {
        let (sessions, now, ours) = (Sessions::default(), Instant::now(), token("open-sesame"));
        let first = sessions.begin(&ours, now).unwrap();
        let rest: Vec<String> = (0..SESSIONS_MAX).map(|_| sessions.begin(&ours, now).unwrap()).collect();
        let knows = |id: &String| sessions.knows(&[format!("{COOKIE}={id}").as_bytes()], &ours, now);
        assert!(!knows(&first));
        assert!(rest.iter().all(knows));
    }
}
