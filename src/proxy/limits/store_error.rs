//! Why the shared store cannot be used, and what to do about it. A store that answers with a refusal is running: to look
//! whether it does would lead nowhere.

use redis::{ErrorKind, RedisError};

/// What keeps the shared store from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) enum Trouble {
    /// No answer, or no connection.
    Silent,
    /// A node of a cluster that does not hold our keys; where they are, if it said so.
    Moved(Option<String>),
    /// A replica.
    ReadOnly,
    /// It wants a password, or another one.
    Unauthenticated,
    /// The user may not do what is needed.
    Forbidden,
    /// Any other refusal, by its code.
    Refused(String),
}

/// Longest code of a refusal that is repeated, in bytes.
const CODE_MAX: usize = 40;

impl Trouble {
    /// `None`: it did not answer in time.
    pub(in crate::proxy) fn of(error: Option<&RedisError>) -> Self {
        let Some(error) = error else { return Self::Silent };
        let moved = || error.redirect_node().map(|(address, _)| address.to_owned());
        match error.code() {
            Some("MOVED" | "ASK") => Self::Moved(moved()),
            Some("READONLY") => Self::ReadOnly,
            Some("NOAUTH" | "WRONGPASS") => Self::Unauthenticated,
            Some("NOPERM") => Self::Forbidden,
            Some(code) => Self::Refused(code.chars().filter(char::is_ascii_graphic).take(CODE_MAX).collect()),
            None if error.kind() == ErrorKind::AuthenticationFailed => Self::Unauthenticated,
            None => Self::Silent,
        }
    }

    /// What is wrong, and what to do.
    pub(in crate::proxy) fn hint(&self) -> String {
        match self {
            Self::Silent => "it does not answer: is Redis running, and does limits.redis name it?".to_owned(),
            Self::Moved(Some(to)) => format!(
                "it is a node of a cluster, and our keys are on another (MOVED): let limits.redis name {to}, or a Redis \
                 that is no cluster"
            ),
            Self::Moved(None) => {
                "it is a node of a cluster, and our keys are on another (MOVED): let limits.redis name that one, or a \
                 Redis that is no cluster"
                    .to_owned()
            }
            Self::ReadOnly => {
                "it is a replica, which takes no writes (READONLY): let limits.redis name the primary".to_owned()
            }
            Self::Unauthenticated => "it wants a password, or another one than it gets (NOAUTH): let \
                 limits.redis_password_env name the variable with the right one"
                .to_owned(),
            Self::Forbidden => "its user may not do what is needed (NOPERM): allow it scripts (EVALSHA, SCRIPT LOAD), \
                 sorted sets, hashes and streams, and the keys {streamgauge*"
                .to_owned(),
            Self::Refused(code) => format!("it refuses ({code}): look into Redis's own log"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reply: &str) -> Trouble {
        let value = redis::parse_redis_value(reply.as_bytes()).unwrap();
        Trouble::of(value.extract_error().err().as_ref())
    }

    #[test]
    fn what_a_store_says_is_told_apart_from_silence() {
        let moved = of("-MOVED 4711 10.0.0.2:6379\r\n");
        assert_eq!(moved, Trouble::Moved(Some("10.0.0.2:6379".to_owned())));
        assert!(moved.hint().contains("10.0.0.2:6379"));
        assert_eq!(of("-READONLY You can't write against a read only replica.\r\n"), Trouble::ReadOnly);
        assert_eq!(of("-NOAUTH Authentication required.\r\n"), Trouble::Unauthenticated);
        assert_eq!(of("-WRONGPASS invalid username-password pair\r\n"), Trouble::Unauthenticated);
        assert_eq!(of("-NOPERM this user has no permissions\r\n"), Trouble::Forbidden);
        assert_eq!(of("-OOM command not allowed\r\n"), Trouble::Refused("OOM".to_owned()));
        let io = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!((Trouble::of(Some(&io)), Trouble::of(None)), (Trouble::Silent, Trouble::Silent));
    }
}
