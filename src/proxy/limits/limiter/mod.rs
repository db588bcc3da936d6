//! Where limits are kept: in this process's memory, or in a store that several proxies share.
//!
//! A [`Hold`] is what one request has taken. Without the store, while it is away, a proxy keeps its share in memory; what
//! was used then is told to the store once it is back.

mod pending;
mod script_reply;
mod shared;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use self::pending::{Entry, Report};
use self::shared::{Answer, Away, SharedStore};
use crate::config::Settings;
use crate::config::fleet::Fleet;
use crate::config::limits::{Limit, LimitStore, OnStoreFailure};
use crate::policy::limits::{
    Cells, Claim, Denial, Estimate, HolderView, Learned, Place, Reason, Refusals, Request, Saved, Standing, Totals,
    UnrecognisedRequests, Used,
};
use crate::proxy::clock::{every, since_1970};
use crate::words::worded;

/// How often a proxy says to the shared store that it lives, well within its lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(4);

/// Pause before what the store did not take is told again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// At the end, telling the store what was used may take so long.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The limits of the process. They outlive reloads: holders keep what they have taken.
pub struct Limiter {
    cells: Mutex<Cells>,
    learned: Mutex<Learned>,
    unforeseen: Mutex<UnrecognisedRequests>,
    shared: RwLock<Store>,
    /// An instant, and the wall clock then.
    anchor: (Instant, Duration),
}

/// The shared store, as it is configured.
#[derive(Default)]
struct Store {
    of: LimitStore,
    /// What its keys begin with.
    tag: String,
    store: Option<Arc<SharedStore>>,
}

worded! {
    /// Where limits are kept at the moment.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Mode {
        Memory = "memory",
        Shared = "shared",
        /// The shared store is away: this proxy's share is kept in memory.
        Local = "local",
        /// The shared store is away: what has limits is refused.
        Reject = "reject",
    }
}

/// What one request has taken of its limits.
pub(crate) struct Hold {
    limiter: Arc<Limiter>,
    /// In this process's cells.
    local: Option<Vec<Claim>>,
    /// In the shared store's books.
    shared: Option<(Arc<SharedStore>, Entry)>,
    told: Used,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            cells: Mutex::default(),
            learned: Mutex::default(),
            unforeseen: Mutex::default(),
            shared: RwLock::default(),
            anchor: (Instant::now(), since_1970()),
        }
    }
}

impl Limiter {
    /// Takes all `claims`, or none.
    pub(crate) async fn admit(self: &Arc<Self>, claims: Vec<Claim>) -> Result<(Hold, Standing), Box<Denial>> {
        let Some(store) = self.store() else { return self.admit_here(claims, None) };
        let entry = store.entry(&claims);
        match store.admit(&entry, self.now()).await {
            Ok(Answer::Admitted(standings)) => {
                let mut tightest = Standing::default();
                standings.iter().for_each(|standing| tightest.tighten(standing));
                self.follow(&claims, &standings, store.nodes());
                let shared = Some((store, entry));
                Ok((Hold { limiter: Arc::clone(self), local: None, shared, told: Used::default() }, tightest))
            }
            Ok(Answer::Denied(denial)) => Err(denial),
            Err(Away) => self.admit_without(claims, store, entry),
        }
    }

    /// Books what was used of `claims` without a reservation: nobody could be asked before.
    pub(crate) fn charge(&self, mut claims: Vec<Claim>, used: Used) {
        for claim in &mut claims {
            *claim = Claim { tokens: 0, cost: 0, runs: false, ..claim.clone() };
        }
        let Some(store) = self.store() else {
            let now = self.now();
            self.cells.lock().report(&mut claims, Used::default(), used, true, now);
            return;
        };
        let entry = store.entry(&claims);
        let mut cells = self.cells.lock();
        entry.claims.iter().for_each(|claim| cells.count_ended(claim, used));
        drop(cells);
        // The store charges what it did not admit.
        store.pending.put(Report { entry, used, done: true });
    }

    /// Why `claims` would be refused as things stand. Takes nothing. A shared store is asked about those whom it refused lately;
    /// of all others it is not known.
    pub(crate) async fn refusal(&self, mut claims: Vec<Claim>) -> Option<Box<Denial>> {
        let now = self.now();
        if let Some(store) = self.store() {
            match store.on_failure {
                _ if !store.is_away() => return store.refusal(&claims, now).await,
                OnStoreFailure::Reject => return None,
                OnStoreFailure::Local => take_share(&mut claims, store.nodes()),
            }
        }
        self.cells.lock().refusal(&mut claims, now)
    }

    /// Keeps that one of `limits` refuses somebody, and since when.
    pub(crate) fn refused(&self, limits: &[Arc<Limit>], denial: &Denial) {
        let refusing = limits.iter().find(|limit| limit.name == denial.limit && denial.reason.is_full());
        let Some(limit) = refusing else { return };
        let mut claim = Claim::new(limit, Arc::clone(&denial.holder));
        let now = self.now();
        self.cells.lock().refused(&mut claim, denial.reason.as_str(), now);
    }

    /// What a request may take of a limit.
    pub(crate) fn estimate(&self, request: &Request<'_>, limit: &Limit) -> Option<Estimate> {
        if !limit.counts_tokens() {
            return None;
        }
        Some(self.learned.lock().estimate(request, &limit.token_limit()))
    }

    /// An answer told what it took.
    pub(crate) fn learn(&self, holder: &Arc<str>, model: &Arc<str>, body_bytes: u64, input: Option<u64>, output: u64) {
        self.learned.lock().learn(holder, model, body_bytes, input, output);
    }

    /// What a request that shows nothing of an LLM is expected to take, by what such requests took before.
    pub(crate) fn expected(&self, holder: &Arc<str>, place: &Place) -> Used {
        let now = self.now();
        self.unforeseen.lock().expected(holder, place, now)
    }

    /// A request that showed nothing of an LLM took so much.
    pub(crate) fn learn_unforeseen(&self, holder: &Arc<str>, place: &Place, used: Used) {
        let now = self.now();
        self.unforeseen.lock().learn(holder, place, used, now);
    }

    /// Follows the configuration: which store there is.
    ///
    /// # Errors
    /// What is wrong with the store's address; the limits stay where they are then.
    pub fn configure(&self, settings: &Settings) -> Result<(), String> {
        let mut shared = self.shared.write();
        let tag = Fleet::tag(settings.fleet.as_ref());
        if shared.of != settings.limit_store || shared.tag != tag {
            let store = SharedStore::new(&settings.limit_store, &tag)?;
            *shared = Store { of: settings.limit_store.clone(), tag, store: store.map(Arc::new) };
        }
        Ok(())
    }

    pub fn mode(&self) -> Mode {
        match self.store() {
            None => Mode::Memory,
            Some(store) if !store.is_away() => Mode::Shared,
            Some(store) => match store.on_failure {
                OnStoreFailure::Local => Mode::Local,
                OnStoreFailure::Reject => Mode::Reject,
            },
        }
    }

    /// What keeps the shared store from being used, and what to do about it, while something does.
    pub fn trouble(&self) -> Option<String> {
        self.store()?.trouble()
    }

    /// Tells the shared store what was used as it comes, and that this proxy lives. Never ends.
    pub async fn keep_store(&self) {
        let mut renewal = every(RENEW_INTERVAL);
        loop {
            let Some(store) = self.store() else {
                renewal.tick().await;
                continue;
            };
            tokio::select! {
                _ = renewal.tick() => store.renew(self.now()).await,
                () = store.pending.came.notified() => {}
            }
            if !store.pending.is_empty() && !store.tell(self.now()).await {
                tokio::time::sleep(RETRY_PAUSE).await;
                store.pending.came.notify_one();
            }
        }
    }

    /// Tells the shared store the last that was used. To be called after the last request.
    pub async fn finish(&self) {
        let Some(store) = self.store() else { return };
        let told = tokio::time::timeout(LAST_WORDS, store.tell_last(self.now())).await;
        if told != Ok(true) {
            tracing::warn!(event = "limits.not_told", "the shared store of the limits was not told all that was used");
        }
    }

    /// Forgets what is empty, and limits that are gone.
    pub fn sweep(&self, limits: &[Arc<Limit>]) {
        let now = self.now();
        self.cells.lock().sweep(limits, now);
    }

    /// By limit: what went through it, and the share in use of its fullest cell; of a shared store, of the fullest that
    /// was met since the last call.
    pub fn usage(&self) -> Vec<(Arc<str>, Totals, f64)> {
        let now = self.now();
        let mut usage = self.cells.lock().usage(now);
        if let Some(store) = self.store() {
            let met = store.fullest_met();
            for (limit, _, fullest) in &mut usage {
                *fullest = met.get(limit).copied().unwrap_or(0.0).max(*fullest);
            }
        }
        usage
    }

    /// Where `holder` stands under each of `limits`, with a shared store; `None` without one, or where it is away.
    pub async fn look(&self, holder: &str, limits: &[Arc<Limit>]) -> Option<Vec<(Arc<str>, Standing)>> {
        let store = self.store()?;
        let claims: Vec<Claim> = limits.iter().map(|limit| Claim::new(limit, holder)).collect();
        store.look(&store.entry(&claims), self.now()).await
    }

    /// Where a holder (as `user:alice`) stands, or those who have most in use.
    pub fn view(&self, holder: Option<&str>, most: usize) -> Vec<HolderView> {
        let now = self.now();
        self.cells.lock().view(holder, most, now)
    }

    /// The limits that refuse, since when and how often; times count from the Unix epoch.
    pub fn refusing(&self) -> Vec<(Arc<str>, Refusals)> {
        let now = self.now();
        self.cells.lock().refusing(now)
    }

    /// What outlives a restart.
    pub fn save(&self) -> Saved {
        let now = self.now();
        self.cells.lock().save(now)
    }

    /// Takes up what was saved.
    pub fn restore(&self, saved: Saved, limits: &[Arc<Limit>]) {
        self.cells.lock().restore(saved, limits);
    }

    fn admit_here(
        self: &Arc<Self>,
        mut claims: Vec<Claim>,
        shared: Option<(Arc<SharedStore>, Entry)>,
    ) -> Result<(Hold, Standing), Box<Denial>> {
        let now = self.now();
        let standing = self.cells.lock().admit(&mut claims, now)?;
        Ok((Hold { limiter: Arc::clone(self), local: Some(claims), shared, told: Used::default() }, standing))
    }

    /// What the store says is where our own cells begin when it is away: a fresh burst each time would be more than the
    /// limits allow.
    fn follow(&self, claims: &[Claim], standings: &[Standing], nodes: u32) {
        let now = self.now();
        let mut cells = self.cells.lock();
        cells.count_held(claims);
        for (claim, standing) in claims.iter().zip(standings) {
            let mut own = Claim { limit: Arc::new(claim.limit.share(nodes)), ..claim.clone() };
            cells.follow(&mut own, standing, now);
        }
    }

    /// The store is away, or may have taken the claims without our hearing of it: the report of the end sets it right.
    fn admit_without(
        self: &Arc<Self>,
        mut claims: Vec<Claim>,
        store: Arc<SharedStore>,
        entry: Entry,
    ) -> Result<(Hold, Standing), Box<Denial>> {
        if store.on_failure == OnStoreFailure::Reject {
            store.pending.put(Report { entry, used: Used::default(), done: true });
            return Err(Box::new(unavailable(&claims)));
        }
        take_share(&mut claims, store.nodes());
        let refused = entry.clone();
        let admitted = self.admit_here(claims, Some((Arc::clone(&store), entry)));
        if admitted.is_err() {
            store.pending.put(Report { entry: refused, used: Used::default(), done: true });
        }
        admitted
    }

    fn store(&self) -> Option<Arc<SharedStore>> {
        self.shared.read().store.clone()
    }

    /// Time since the Unix epoch that never goes back: the wall clock as it was at the start, and a monotonic clock since.
    fn now(&self) -> Duration {
        self.anchor.1 + self.anchor.0.elapsed()
    }
}

impl Hold {
    /// Tells what was used by now; `done` once, at the end. Tells whether a limit wants the stream cut.
    pub(crate) fn report(&mut self, used: Used, done: bool) -> bool {
        let mut cut = false;
        if let Some(claims) = &mut self.local {
            let now = self.limiter.now();
            cut = self.limiter.cells.lock().report(claims, self.told, used, done, now);
        }
        if let Some((store, entry)) = &self.shared {
            // What the store did not admit, it learns of at the end.
            if done && self.local.is_none() {
                let mut cells = self.limiter.cells.lock();
                entry.claims.iter().for_each(|claim| cells.count_ended(claim, used));
            }
            if done || self.local.is_none() {
                store.pending.put(Report { entry: entry.clone(), used, done });
            }
            cut |= entry.cut.load(Ordering::Relaxed);
        }
        self.told = used;
        cut
    }

    /// What is known of by now.
    pub(crate) fn told(&self) -> Used {
        self.told
    }

    /// The claims, wherever they are kept.
    pub(crate) fn claims(&self) -> &[Claim] {
        match (&self.local, &self.shared) {
            (Some(claims), _) => claims,
            (None, Some((_, entry))) => &entry.claims,
            (None, None) => &[],
        }
    }

    /// Where it is kept.
    pub(crate) fn mode(&self) -> Mode {
        match (&self.local, &self.shared) {
            (None, _) => Mode::Shared,
            (Some(_), Some(_)) => Mode::Local,
            (Some(_), None) => Mode::Memory,
        }
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }
}

/// Without the store each proxy keeps its part of every limit.
fn take_share(claims: &mut [Claim], nodes: u32) {
    for claim in claims {
        claim.limit = Arc::new(claim.limit.share(nodes));
    }
}

fn unavailable(claims: &[Claim]) -> Denial {
    let first = claims.first().map(|claim| &claim.limit);
    Denial {
        limit: first.map_or_else(|| Arc::from(""), |limit| Arc::clone(&limit.name)),
        holder: claims.first().map_or_else(|| Arc::from(""), |claim| Arc::clone(&claim.holder)),
        key: first.map_or(crate::config::limits::LimitKey::Global, |limit| limit.key),
        reason: Reason::Store,
        retry_after: Some(Duration::from_secs(1)),
        standing: Standing::default(),
    }
}
