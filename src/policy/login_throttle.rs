//! Throttles logins: after some failures an address must wait, twice as long after each further one. Times count from
//! any fixed moment and never go back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::trusted_proxies::network;

/// Wrong tries that cost nothing: a slip, an old token in a script.
const FREE: u32 = 5;

/// The wait after the first try that was not free; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// Who has not tried for so long starts anew.
const FORGET: Duration = Duration::from_secs(15 * 60);

/// Addresses that are remembered at most; beyond it the one that failed longest ago goes.
const ADDRESSES_MAX: usize = 1_024;

/// Failed tries by address; of IPv6 by /64. Without an address, as on a unix socket, nothing is remembered.
#[derive(Debug, Default)]
pub struct LoginThrottle {
    failed: HashMap<IpAddr, Failed>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    times: u32,
    last: Duration,
}

impl LoginThrottle {
    /// Whether `address` may try now; else how long it has to wait.
    ///
    /// # Errors
    /// The time that is left.
    pub fn may_try(&self, address: Option<IpAddr>, now: Duration) -> Result<(), Duration> {
        let Some(failed) = address.and_then(|address| self.failed.get(&network(address))) else { return Ok(()) };
        let left = (failed.last + failed.wait()).saturating_sub(now);
        if left.is_zero() { Ok(()) } else { Err(left) }
    }

    /// `address` sent a wrong token. Returns its number of failures.
    pub fn failed(&mut self, address: Option<IpAddr>, now: Duration) -> u32 {
        let Some(address) = address.map(network) else { return 1 };
        if !self.failed.contains_key(&address) && self.failed.len() >= ADDRESSES_MAX {
            let oldest = self.failed.iter().min_by_key(|(_, failed)| failed.last).map(|(address, _)| *address);
            oldest.map(|oldest| self.failed.remove(&oldest));
        }
        let failed = self.failed.entry(address).or_insert(Failed { times: 0, last: now });
        if now.saturating_sub(failed.last) >= FORGET {
            failed.times = 0;
        }
        failed.times = failed.times.saturating_add(1);
        failed.last = now;
        failed.times
    }

    /// `address` was right.
    pub fn succeeded(&mut self, address: Option<IpAddr>) {
        address.map(|address| self.failed.remove(&network(address)));
    }
}

impl Failed {
    fn wait(self) -> Duration {
        match self.times.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(beyond) => FIRST_WAIT.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX)).min(WAIT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_wrong_try_doubles_the_wait() {
        let (mut attempts, caller) = (LoginThrottle::default(), address("192.0.2.1"));
        for _ in 1..FREE {
            attempts.failed(caller, s(0));
            assert_eq!(attempts.may_try(caller, s(0)), Ok(()));
        }
        attempts.failed(caller, s(0));
        assert_eq!(attempts.may_try(caller, s(0)), Err(s(1)));
        assert_eq!(attempts.may_try(caller, s(1)), Ok(()));
        attempts.failed(caller, s(1));
        assert_eq!(attempts.may_try(caller, s(1)), Err(s(2)));
        for _ in 0..100 {
            attempts.failed(caller, s(2));
        }
        assert_eq!(attempts.may_try(caller, s(2)), Err(WAIT_MAX));
        assert_eq!(attempts.may_try(address("192.0.2.2"), s(2)), Ok(()), "another's tries");
        attempts.succeeded(caller);
        assert_eq!(attempts.may_try(caller, s(2)), Ok(()));
    }

    #[test]
    fn a_guesser_gets_few_tries_a_day() {
        let (mut attempts, caller) = (LoginThrottle::default(), address("192.0.2.1"));
        let tries = (0..86_400).filter(|second| {
            let may = attempts.may_try(caller, s(*second)).is_ok();
            may && attempts.failed(caller, s(*second)) > 0
        });
        let tries = tries.count();
        assert!((200..320).contains(&tries), "{tries}");
    }

    #[test]
    fn a_subscriber_is_one_and_the_memory_is_bounded() {
        let mut attempts = LoginThrottle::default();
        for host in 0..20_u128 {
            attempts.failed(Some(IpAddr::V6((0x2001_0db8 << 96 | host).into())), s(0));
        }
        assert!(attempts.may_try(address("2001:db8::ffff"), s(0)).is_err());
        for host in 0..5_000_u32 {
            attempts.failed(Some(IpAddr::V4((0x0a00_0000 + host).into())), s(u64::from(host)));
        }
        assert_eq!(attempts.failed.len(), ADDRESSES_MAX);
    }

    #[test]
    fn who_was_wrong_long_ago_starts_anew() {
        let (mut attempts, caller) = (LoginThrottle::default(), address("192.0.2.1"));
        for _ in 0..20 {
            attempts.failed(caller, s(0));
        }
        assert_eq!(attempts.failed(caller, FORGET), 1);
        assert_eq!(attempts.may_try(caller, FORGET), Ok(()));
    }
}
