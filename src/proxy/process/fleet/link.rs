//! What a replica has of its fleet: the connection to the Redis that all of them use, and who the others are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, Script, ScriptInvocation};

use super::outbox::Batch;
use super::presence::{self, Member, Presence, Roster};
use crate::config::fleet::Fleet;
use crate::config::limits::LimitStore;
use crate::proxy::limits::redis_line::{RedisLine, UNHURRIED};
use crate::proxy::limits::store_error::Trouble;

/// A Redis that did not answer for so long is away.
const AWAY: Duration = Duration::from_secs(3);

static HELLO: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("hello.lua")));

/// Redis did not answer in time, or refused.
#[derive(Debug)]
pub(super) struct NoAnswer;

/// The connection of one replica to one fleet.
pub(super) struct Link {
    pub(super) name: Arc<str>,
    pub(super) owner: Arc<str>,
    line: RedisLine,
    tag: String,
    contact: Mutex<Contact>,
    roster: Mutex<Roster>,
    /// The last hint that was heard; empty before the first.
    hints_heard: Mutex<String>,
}

/// When Redis last answered.
struct Contact {
    since: Instant,
    is_away: bool,
    /// How often it was.
    outages: u64,
    trouble: Option<Trouble>,
}

impl Link {
    /// # Errors
    /// What is wrong with the address of Redis.
    pub(super) fn new(store: &LimitStore, fleet: &Fleet, owner: &Arc<str>) -> Result<Option<Self>, String> {
        let Some(line) = RedisLine::new(store)? else { return Ok(None) };
        Ok(Some(Self {
            name: Arc::clone(&fleet.name),
            owner: Arc::clone(owner),
            line,
            tag: Fleet::tag(Some(fleet)),
            contact: Mutex::new(Contact { since: Instant::now(), is_away: false, outages: 0, trouble: None }),
            roster: Mutex::default(),
            hints_heard: Mutex::default(),
        }))
    }

    /// A key of this fleet.
    pub(super) fn key(&self, of: &str, name: &str) -> String {
        format!("{}:{of}:{name}", self.tag)
    }

    /// Says that this replica lives, and hears who else does.
    pub(super) async fn hello(&self, says: &Presence) -> Result<(), NoAnswer> {
        let says = serde_json::to_string(says).unwrap_or_default();
        let mut call = HELLO.prepare_invoke();
        call.key(self.members_key()).key(self.key("replica", &self.owner));
        call.arg(&*self.owner).arg(says).arg(presence::LEASE_MS).arg(presence::MEMBERS_MAX).arg(presence::BYTES_MAX);
        let reply: Vec<String> = self.run(&call).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.roster.lock().unwrap_or_else(PoisonError::into_inner).hear(presence::members(&reply, now), now);
        Ok(())
    }

    /// Who was alive when Redis was last asked, this replica included once it was.
    pub(super) fn members(&self) -> Arc<[Member]> {
        self.roster().members
    }

    /// Who was alive when Redis was last asked, and who went without a word.
    pub(super) fn roster(&self) -> Roster {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The address of this machine from which it reaches Redis.
    pub(super) async fn own_address(&self) -> Option<IpAddr> {
        let find = async {
            let to = tokio::net::lookup_host(self.line.place()?).await.ok()?.next()?;
            let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            // Nothing is sent: it only says which way it would go.
            let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
            socket.connect(to).await.ok()?;
            Some(socket.local_addr().ok()?.ip())
        };
        tokio::time::timeout(UNHURRIED, find).await.ok()?
    }

    /// Runs a script that nobody waits for.
    pub(super) async fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, NoAnswer> {
        let mut connection = self.line.connect().map_err(|error| self.failed(Some(&error)))?;
        match tokio::time::timeout(UNHURRIED, call.invoke_async::<T>(&mut connection)).await {
            Ok(Ok(reply)) => {
                self.answered();
                Ok(reply)
            }
            Ok(Err(error)) => Err(self.failed(Some(&error))),
            Err(_) => Err(self.failed(None)),
        }
    }

    /// The last words: what waits, by canary, and that nobody need wait for this replica any more. Over a connection of their own: the
    /// other ended with its runtime.
    pub(super) async fn goodbye(&self, waiting: Vec<(String, Vec<Batch>)>) {
        let Ok(mut connection) = self.line.another().await else { return };
        for (canary, batches) in waiting.iter().filter(|(_, batches)| !batches.is_empty()) {
            let told: redis::RedisResult<String> = self.send_call(canary, batches).invoke_async(&mut connection).await;
            if let Err(error) = told {
                tracing::warn!(event = "fleet.not_told", "the fleet was not told the last: {}", error.category());
            }
        }
        let mut pipe = redis::pipe();
        pipe.zrem(self.members_key(), &*self.owner).ignore().del(self.key("replica", &self.owner)).ignore();
        // Whoever is not told sees the lease run out.
        let _: redis::RedisResult<()> = pipe.query_async(&mut connection).await;
    }

    /// Whether Redis does not answer, for so long that this replica acts for itself.
    pub(super) fn is_away(&self) -> bool {
        let mut contact = self.contact();
        if !contact.is_away && contact.since.elapsed() >= AWAY {
            contact.is_away = true;
            contact.outages += 1;
            let hint = contact.trouble.clone().unwrap_or(Trouble::Silent).hint();
            drop(contact);
            tracing::warn!(event = "fleet.away", fleet = &*self.name, "the fleet's Redis cannot be used: {hint}");
            return true;
        }
        contact.is_away
    }

    /// How often Redis was away.
    pub(super) fn outages(&self) -> u64 {
        self.contact().outages
    }

    /// What keeps Redis from being used, in words, while it is away.
    pub(super) fn trouble(&self) -> Option<String> {
        let contact = self.contact();
        contact.is_away.then(|| contact.trouble.clone().unwrap_or(Trouble::Silent).hint())
    }

    fn answered(&self) {
        let mut contact = self.contact();
        let was_away = std::mem::take(&mut contact.is_away);
        (contact.since, contact.trouble) = (Instant::now(), None);
        drop(contact);
        if was_away {
            tracing::info!(event = "fleet.back", fleet = &*self.name, "the fleet's Redis answers again");
        }
    }

    fn failed(&self, error: Option<&redis::RedisError>) -> NoAnswer {
        let trouble = Trouble::of(error);
        let before = self.contact().trouble.replace(trouble.clone());
        // A refusal is said at once: to wait for it to pass would lead nowhere.
        if before.as_ref() != Some(&trouble) && trouble != Trouble::Silent {
            let hint = trouble.hint();
            tracing::warn!(event = "fleet.refused", fleet = &*self.name, "the fleet's Redis cannot be used: {hint}");
        }
        NoAnswer
    }

    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hints_key(&self) -> String {
        format!("{}:hints", self.tag)
    }

    pub(super) fn hints_heard(&self) -> String {
        self.hints_heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_hints_heard(&self, last: String) {
        *self.hints_heard.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    fn members_key(&self) -> String {
        format!("{}:members", self.tag)
    }
}
