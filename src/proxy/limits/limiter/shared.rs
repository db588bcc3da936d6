//! Limits in a Redis or Valkey that several proxies share: one script a decision, by the server's clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::ConnectionLike;
use redis::{RedisError, RedisResult, Script, ScriptInvocation};

use super::pending::{Entry, Pending, Report};
use super::script_reply::Reply;
use crate::config::limits::{LimitStore, OnExhausted, OnStoreFailure};
use crate::policy::limits::{Breaker, Claim, Denial, RecentlyRefused, Standing, Used};
use crate::proxy::limits::redis_line::{RedisLine, UNHURRIED};
use crate::proxy::limits::store_error::Trouble;

/// What a proxy holds counts for so long after its last word.
const LEASE: Duration = Duration::from_secs(15);

/// Reports sent at once.
const BATCH: usize = 256;

static ADMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("admit.lua")));

static REPORT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("report.lua")));

/// What the store said of a request.
pub(super) enum Answer {
    /// Where each holder stands.
    Admitted(Vec<Standing>),
    Denied(Box<Denial>),
}

/// The store cannot be asked, or did not answer in time.
#[derive(Debug)]
pub(super) struct Away;

pub(in crate::proxy) struct SharedStore {
    line: RedisLine,
    /// All keys share it, so that a cluster keeps them on one node, as scripts ask for.
    tag: String,
    breaker: Mutex<Breaker>,
    /// This process, in the store's books.
    owner: String,
    numbers: AtomicU64,
    /// Proxies that were alive when the store was last asked, this one included.
    nodes: AtomicU32,
    away: AtomicBool,
    /// Why it is away.
    trouble: Mutex<Option<Trouble>>,
    /// By limit: the share in use of the fullest holder met lately.
    met: Mutex<HashMap<Arc<str>, f64>>,
    lately: Mutex<RecentlyRefused>,
    pub(super) pending: Pending,
    deadline: Duration,
    pub(super) on_failure: OnStoreFailure,
}

impl SharedStore {
    /// # Errors
    /// What is wrong with the address; it is not repeated.
    pub(super) fn new(store: &LimitStore, tag: &str) -> Result<Option<Self>, String> {
        let Some(line) = RedisLine::new(store)? else { return Ok(None) };
        Ok(Some(Self {
            line,
            tag: tag.to_owned(),
            breaker: Mutex::default(),
            owner: uuid::Uuid::now_v7().simple().to_string(),
            numbers: AtomicU64::new(0),
            nodes: AtomicU32::new(1),
            away: AtomicBool::new(false),
            trouble: Mutex::default(),
            met: Mutex::default(),
            lately: Mutex::default(),
            pending: Pending::default(),
            deadline: store.deadline,
            on_failure: store.on_failure,
        }))
    }

    /// A place in the store's books for one request.
    pub(super) fn entry(&self, claims: &[Claim]) -> Entry {
        Entry {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            claims: claims.into(),
            cut: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Takes all claims of `entry`, or none. Where it is not known whether they were taken, a report of the request's
    /// end sets it right.
    pub(super) async fn admit(&self, entry: &Entry, now: Duration) -> Result<Answer, Away> {
        let reply = self.ask(entry, lease_ms(), now).await?;
        self.meet(&entry.claims, &reply.standings);
        Ok(match reply.refusal(&entry.claims) {
            None => Answer::Admitted(reply.standings),
            Some(denial) => {
                self.lately.lock().refused(&entry.claims, &denial, now);
                Answer::Denied(Box::new(denial))
            }
        })
    }

    /// Why `claims` would be refused, of somebody who was refused lately: nobody else is asked about. Takes nothing.
    pub(super) async fn refusal(&self, claims: &[Claim], now: Duration) -> Option<Box<Denial>> {
        if !self.lately.lock().concerns(claims, now) {
            return None;
        }
        let denial = self.ask(&self.entry(claims), 0, now).await.ok()?.refusal(claims)?;
        self.lately.lock().refused(claims, &denial, now);
        Some(Box::new(denial))
    }

    /// Where the holders of `entry` stand, by limit. Takes nothing.
    pub(super) async fn look(&self, entry: &Entry, now: Duration) -> Option<Vec<(Arc<str>, Standing)>> {
        let reply = self.ask(entry, 0, now).await.ok()?;
        let names = entry.claims.iter().map(|claim| Arc::clone(&claim.limit.name));
        Some(names.zip(reply.standings).collect())
    }

    /// By limit: the share in use of the fullest holder met since the last call.
    pub(super) fn fullest_met(&self) -> HashMap<Arc<str>, f64> {
        std::mem::take(&mut *self.met.lock())
    }

    async fn ask(&self, entry: &Entry, lease_ms: u64, now: Duration) -> Result<Reply, Away> {
        if !self.breaker.lock().allows(now) {
            return Err(Away);
        }
        let mut call = self.call(&ADMIT, entry, lease_ms);
        for claim in entry.claims.iter() {
            admit_args(&mut call, claim);
        }
        let mut connection = self.line.connect().map_err(|error| self.failed(Some(&error), now))?;
        match tokio::time::timeout(self.deadline, call.invoke_async::<Vec<i64>>(&mut connection)).await {
            Ok(Ok(numbers)) => {
                self.answered();
                let reply = Reply::read(&numbers, &entry.claims).ok_or(Away)?;
                self.nodes.store(reply.nodes, Ordering::Relaxed);
                Ok(reply)
            }
            Ok(Err(error)) => Err(self.failed(Some(&error), now)),
            Err(_) => Err(self.failed(None, now)),
        }
    }

    fn meet(&self, claims: &[Claim], standings: &[Standing]) {
        let mut met = self.met.lock();
        for (claim, standing) in claims.iter().zip(standings) {
            let used = [standing.tokens, standing.requests]
                .into_iter()
                .flatten()
                .map(|allowance| 1.0 - allowance.remaining as f64 / allowance.limit.max(1) as f64);
            let fullest = used.fold(0.0, f64::max);
            let kept = met.entry(Arc::clone(&claim.limit.name)).or_insert(0.0);
            *kept = kept.max(fullest);
        }
    }

    /// Tells what waits to be told. True when all of it was.
    pub(super) async fn tell(&self, now: Duration) -> bool {
        match self.line.connect() {
            Ok(mut connection) => self.tell_over(&mut connection, now).await,
            Err(error) => {
                self.failed(Some(&error), now);
                false
            }
        }
    }

    /// The last words, over a connection of their own: the one that requests used ends with their runtime.
    pub(super) async fn tell_last(&self, now: Duration) -> bool {
        match self.line.another().await {
            Ok(mut connection) => {
                let told = self.tell_over(&mut connection, now).await;
                // Nothing is held any more: the others need not wait for the lease to run out.
                let gone: RedisResult<()> =
                    redis::cmd("ZREM").arg(self.owners()).arg(&self.owner).query_async(&mut connection).await;
                told && gone.is_ok()
            }
            Err(_) => false,
        }
    }

    /// Says that this proxy lives; also the way by which a store that is back is noticed without requests.
    pub(super) async fn renew(&self, now: Duration) {
        let Ok(mut connection) = self.line.connect() else { return };
        let empty = Entry { number: u64::MAX, claims: Arc::new([]), cut: Arc::default() };
        let renewed: Result<RedisResult<Vec<i64>>, _> =
            tokio::time::timeout(UNHURRIED, self.report(&empty, Used::default(), false).invoke_async(&mut connection))
                .await;
        match renewed {
            Ok(Ok(_)) => self.answered(),
            Ok(Err(error)) => _ = self.failed(Some(&error), now),
            Err(_) => _ = self.failed(None, now),
        }
    }

    /// How many proxies share the limits, as far as is known.
    pub(super) fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Whether the store did not answer when it was last asked.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    async fn tell_over(&self, connection: &mut (impl ConnectionLike + Send), now: Duration) -> bool {
        loop {
            let batch = self.pending.some(BATCH);
            if batch.is_empty() {
                return true;
            }
            for report in &batch {
                if let Err(error) = self.tell_one(connection, report).await {
                    self.failed(error.as_ref(), now);
                    return false;
                }
                self.pending.told(report);
            }
            self.answered();
        }
    }

    /// # Errors
    /// What the store said; nothing where it did not answer in time.
    async fn tell_one(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        report: &Report,
    ) -> Result<(), Option<RedisError>> {
        let call = self.report(&report.entry, report.used, report.done);
        match tokio::time::timeout(UNHURRIED, call.invoke_async::<Vec<i64>>(connection)).await {
            Ok(Ok(exhausted)) => {
                let wants_cut = |(claim, exhausted): (&Claim, &i64)| {
                    let outran = report.used.tokens > claim.tokens;
                    *exhausted == 1 && outran && claim.limit.on_exhausted == OnExhausted::Cut
                };
                if report.entry.claims.iter().zip(&exhausted).any(wants_cut) {
                    report.entry.cut.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    }

    fn report(&self, entry: &Entry, used: Used, done: bool) -> ScriptInvocation<'static> {
        let mut call = self.call(&REPORT, entry, lease_ms());
        call.arg(used.tokens).arg(used.cost).arg(u8::from(done));
        for claim in entry.claims.iter() {
            let tokens = claim.limit.tokens;
            call.arg(claim.tokens)
                .arg(tokens.map_or(0, |tokens| tokens.per_minute))
                .arg(tokens.map_or(0, |tokens| tokens.burst))
                .arg(claim.cost)
                .arg(u8::from(claim.limit.has_budget()))
                .arg(u8::from(claim.runs));
        }
        call
    }

    fn call(&self, script: &'static Script, entry: &Entry, lease_ms: u64) -> ScriptInvocation<'static> {
        let mut call = script.prepare_invoke();
        call.key(self.owners()).key(format!("{}:request:{}:{}", self.tag, self.owner, entry.number));
        for claim in entry.claims.iter() {
            call.key(format!("{}:cell:{}:{}", self.tag, claim.limit.name, claim.holder));
        }
        call.arg(&self.owner).arg(lease_ms);
        call
    }

    fn owners(&self) -> String {
        format!("{}:owners", self.tag)
    }

    /// What keeps it from being used, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.as_ref().filter(|_| self.is_away()).map(Trouble::hint)
    }

    fn failed(&self, error: Option<&RedisError>, now: Duration) -> Away {
        self.away.store(true, Ordering::Relaxed);
        let trouble = Trouble::of(error);
        let hint = trouble.hint();
        let before = self.trouble.lock().replace(trouble.clone());
        // A refusal tells more than the silence of before, and is said even if the store was given up by then.
        let is_news = before.as_ref() != Some(&trouble) && trouble != Trouble::Silent;
        if self.breaker.lock().failed(now) | is_news {
            tracing::warn!(
                event = "limits.store_away",
                mode = match self.on_failure {
                    OnStoreFailure::Local => "local",
                    OnStoreFailure::Reject => "reject",
                },
                nodes = self.nodes(),
                "the shared store of the limits cannot be used: {hint}"
            );
        }
        Away
    }

    fn answered(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            *self.trouble.lock() = None;
        }
        if self.breaker.lock().answered() {
            tracing::info!(event = "limits.store_back", "the shared store of the limits answers again");
        }
    }
}

fn lease_ms() -> u64 {
    u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
}

fn admit_args(call: &mut ScriptInvocation<'_>, claim: &Claim) {
    let limit = &claim.limit;
    let tokens = limit.tokens;
    call.arg(claim.tokens)
        .arg(tokens.map_or(0, |tokens| tokens.per_minute))
        .arg(tokens.map_or(0, |tokens| tokens.burst))
        .arg(tokens.map_or(0, |tokens| tokens.debt))
        .arg(limit.requests_per_minute.map_or(0, std::num::NonZeroU32::get))
        .arg(if claim.runs { i64::from(limit.concurrent.unwrap_or(0)) } else { -1 })
        .arg(claim.cost)
        .arg(limit.cost_per_day.unwrap_or(0))
        .arg(limit.cost_per_month.unwrap_or(0))
        .arg(u8::from(claim.unforeseen));
}
