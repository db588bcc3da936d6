//! The live feeds of all other replicas: one for each, while somebody looks here, and for all who do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use memchr::memmem;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::ask::{self, ANSWER_MAX, DEADLINE, Signer, Trouble};
use super::frames::{Frame, Mirror, News};
use super::merge;
use super::peers::{self, Peer};
use crate::config::fleet::{Fleet, PEERS_MAX};
use crate::proxy::Shared;

/// How often it is looked who there is, and how soon a feed that ended is asked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A feed tells something four times a second. One that says nothing for so long is lost.
const SILENCE: Duration = Duration::from_secs(2);

/// News that wait for a slow viewer; one that is further behind is told all anew.
const WAITING_MAX: usize = 64;

/// What is put together of the replicas' overviews, by where it stands.
const PROXY: [&str; 2] = ["upstreams", "canaries"];
const LIVE: [&str; 6] = ["hints", "first_tokens", "troubles", "shadows", "failed", "refused"];

/// The feeds of the others; they are read while somebody looks.
#[derive(Default)]
pub(in crate::admin) struct Feeds(Mutex<Weak<Reading>>);

/// Feeds that are read, until the last viewer goes.
struct Reading {
    replicas: Arc<Replicas>,
    looking: AbortHandle,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// What is known of the others.
struct Replicas {
    known: Mutex<BTreeMap<String, Known>>,
    news: broadcast::Sender<Arc<News>>,
    /// It is known of each whether it answers.
    settled: watch::Sender<bool>,
}

/// One of them, by its name or its address.
struct Known {
    peer: Peer,
    mirror: Mirror,
    overview: Value,
    standing: Standing,
}

enum Standing {
    /// It has not answered yet.
    Asked,
    Live,
    /// Why it is not shown, and since when, since 1970.
    Absent(Trouble, Duration),
    /// It is this replica itself, or one that is known already, under another address.
    Twin,
}

impl Known {
    fn is_live(&self) -> bool {
        matches!(self.standing, Standing::Live)
    }
}

/// One viewer's part.
pub(in crate::admin) struct Subscription {
    reading: Arc<Reading>,
    news: broadcast::Receiver<Arc<News>>,
    told: BTreeSet<u64>,
    /// What is to be told before anything else.
    first: Vec<News>,
}

impl Feeds {
    /// Lets a viewer see what the others show.
    pub(in crate::admin) fn join(&self, shared: &Arc<Shared>) -> Subscription {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = current.upgrade().unwrap_or_else(|| {
            let (news, _) = broadcast::channel(WAITING_MAX);
            let replicas = Arc::new(Replicas { known: Mutex::default(), news, settled: watch::Sender::new(false) });
            let looking = tokio::spawn(look(Arc::clone(shared), Arc::clone(&replicas))).abort_handle();
            let reading = Arc::new(Reading { replicas, looking });
            *current = Arc::downgrade(&reading);
            reading
        });
        drop(current);
        let known = reading.replicas.lock();
        let (news, told) = (reading.replicas.news.subscribe(), BTreeSet::new());
        let first = known.values().filter(|known| known.is_live()).map(|known| known.mirror.whole(&told)).collect();
        drop(known);
        Subscription { reading, news, told, first }
    }
}

impl Subscription {
    /// The next thing to tell.
    pub(in crate::admin) async fn next(&mut self) -> String {
        loop {
            if let Some(first) = self.first.pop() {
                first.tell(&mut self.told);
                return first.data;
            }
            match self.news.recv().await {
                Ok(news) => {
                    news.tell(&mut self.told);
                    return news.data.clone();
                }
                Err(RecvError::Lagged(_)) => {
                    let known = self.reading.replicas.lock();
                    self.news = self.news.resubscribe();
                    self.first = known.values().map(|known| known.mirror.whole(&self.told)).collect();
                }
                // Whoever looks keeps it open.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The overviews of all in one, and who there is. `own` is this replica's.
    pub(in crate::admin) fn overview(&self, shared: &Shared, fleet: &Fleet, mut own: Value) -> Value {
        let known = self.reading.replicas.lock();
        let owner = shared.fleet.owner.to_string();
        let views = |pointer: &str, own: &Value| -> Vec<(String, Value)> {
            let part = |view: &Value| view.pointer(pointer).cloned().unwrap_or(Value::Null);
            let others = known.values().filter(|known| known.is_live());
            let others = others.map(|known| (known.mirror.replica().to_owned(), part(&known.overview)));
            std::iter::once((owner.clone(), part(own))).chain(others).collect()
        };
        let unserved: BTreeSet<String> = views("/proxy/levers/unserved_routes", &own)
            .iter()
            .filter_map(|(_, routes)| routes.as_array())
            .flatten()
            .filter_map(|route| route.as_str().map(str::to_owned))
            .collect();
        let parts: [(&str, &[&str]); 4] = [
            ("/proxy/levers", &["levers"]),
            ("/proxy/limits", &["holders", "refusing"]),
            ("/proxy", &PROXY),
            ("/live", &LIVE),
        ];
        for (pointer, lists) in parts {
            let merged = merge::merged(lists, views(pointer, &own));
            if let Some(place) = own.pointer_mut(pointer) {
                *place = merged;
            }
        }
        if let Some(routes) = own.pointer_mut("/proxy/levers/unserved_routes") {
            *routes = json!(unserved);
        }
        if let Value::Object(own) = &mut own {
            own.insert("fleet".to_owned(), report(shared, fleet, &known));
        }
        own
    }

    /// True once it is known of each of the others whether it answers.
    pub(in crate::admin) fn settled(&self) -> watch::Receiver<bool> {
        self.reading.replicas.settled.subscribe()
    }
}

impl Replicas {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over who there is.
    fn note(&self, peers: Vec<Peer>, place: &mut u64) -> Vec<String> {
        let mut known = self.lock();
        let mut by_name: HashMap<String, Peer> = peers.into_iter().map(|peer| (peer.name(), peer)).collect();
        known.retain(|name, known| {
            let stays = by_name.contains_key(name);
            if !stays {
                self.tell(known.mirror.lose());
            }
            stays
        });
        let mut new = Vec::new();
        for (name, peer) in by_name.drain() {
            match known.get_mut(&name) {
                Some(known) => known.peer = peer,
                None => {
                    *place += 1;
                    let mirror = Mirror::new(&name, *place);
                    let (overview, standing) = (Value::Null, Standing::Asked);
                    known.insert(name.clone(), Known { peer, mirror, overview, standing });
                    new.push(name);
                }
            }
        }
        new
    }

    fn tell(&self, news: News) {
        // Nobody may be looking at this very moment.
        let _ = self.news.send(Arc::new(news));
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Known)) {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(name) {
            change(known);
        }
        self.settle(&all);
    }

    fn settle(&self, all: &BTreeMap<String, Known>) {
        self.settled.send_replace(!all.values().any(|known| matches!(known.standing, Standing::Asked)));
    }

    /// Takes over an event of a replica's feed.
    fn take(&self, name: &str, event: &str, data: &[u8]) -> Result<(), Trouble> {
        let mut all = self.lock();
        let Some(known) = all.get_mut(name) else { return Ok(()) };
        match event {
            "streams" => {
                let frame: Frame = serde_json::from_slice(data).map_err(|_| Trouble::NoReplica)?;
                let news = known.mirror.take(frame).ok_or(Trouble::TooLong)?;
                known.standing = Standing::Live;
                self.tell(news);
                self.settle(&all);
            }
            "overview" => known.overview = serde_json::from_slice(data).map_err(|_| Trouble::NoReplica)?,
            _ => {}
        }
        Ok(())
    }

    fn lose(&self, name: &str, why: Trouble) {
        self.change(name, |known| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let since = match (&known.standing, known.peer.heard.filter(|_| known.peer.is_gone)) {
                (_, Some(heard)) => heard,
                (Standing::Absent(_, since), None) => *since,
                (_, None) => now,
            };
            (known.overview, known.standing) = (Value::Null, Standing::Absent(why, since));
            self.tell(known.mirror.lose());
        });
    }
}

/// Keeps a feed of each replica that there is.
async fn look(shared: Arc<Shared>, replicas: Arc<Replicas>) {
    let (mut reading, mut place) = (JoinSet::new(), 0);
    let mut feeds: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        if let Ok(fleet) = peers::askable(&shared) {
            let peers = peers::peers(&shared, &fleet).await;
            for (number, name) in replicas.note(peers, &mut place).into_iter().enumerate() {
                if feeds.len() + number >= PEERS_MAX {
                    replicas.lose(&name, Trouble::TooMany);
                }
            }
            // Where there is no other one, nobody is waited for.
            replicas.settle(&replicas.lock());
            let known: BTreeSet<String> = replicas.lock().keys().cloned().collect();
            feeds.retain(|name, feed| {
                let stays = known.contains(name);
                if !stays {
                    feed.abort();
                }
                stays
            });
            for name in known {
                if feeds.len() < PEERS_MAX && !feeds.contains_key(&name) {
                    let feed = reading.spawn(follow(Arc::clone(&shared), Arc::clone(&replicas), name.clone()));
                    feeds.insert(name, feed);
                }
            }
        }
        while reading.try_join_next().is_some() {}
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Reads one replica's feed, again and again.
async fn follow(shared: Arc<Shared>, replicas: Arc<Replicas>, name: String) {
    loop {
        let why = match peers::askable(&shared) {
            Ok(fleet) => match read(&shared, &replicas, &fleet, &name).await {
                Err(None) => return replicas.change(&name, |known| known.standing = Standing::Twin),
                Err(Some(why)) => why,
                Ok(()) => Trouble::Ended,
            },
            Err(_) => return,
        };
        replicas.lose(&name, why);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// `None` as error: it is this replica itself, or one that is known by another name.
async fn read(shared: &Shared, replicas: &Replicas, fleet: &Fleet, name: &str) -> Result<(), Option<Trouble>> {
    let peer = replicas.lock().get(name).map(|known| known.peer.clone()).ok_or(None)?;
    if peer.is_gone {
        return Err(Some(Trouble::Gone));
    }
    let (Some(address), Some(secret)) = (&peer.address, &fleet.secret) else { return Err(Some(Trouble::NoAddress)) };
    let signer = Signer { fleet: &fleet.name, secret };
    let mut opened = ask::open(address, "/api/streams/events", signer).await?;
    if peer.owner.as_ref().is_some_and(|owner| *owner != opened.replica) {
        return Err(Some(Trouble::Another(opened.replica)));
    }
    let is_known = |known: &BTreeMap<String, Known>| {
        known.iter().any(|(other, known)| other != name && known.mirror.replica() == opened.replica)
    };
    if *opened.replica == *shared.fleet.owner || is_known(&replicas.lock()) {
        return Err(None);
    }
    replicas.change(name, |known| known.mirror.rename(&opened.replica));
    let mut buffer = BytesMut::new();
    // What it shows comes at once, its overview first.
    let mut patience = DEADLINE;
    loop {
        let frame = tokio::time::timeout(patience, opened.response.body_mut().frame()).await;
        let Some(frame) = frame.map_err(|_| Trouble::Silent)? else { return Ok(()) };
        let Ok(data) = frame.map_err(|_| Trouble::Ended)?.into_data() else { continue };
        patience = SILENCE;
        buffer.extend_from_slice(&data);
        while let Some(end) = memmem::find(&buffer, b"\n\n") {
            let event = buffer.split_to(end).freeze();
            buffer.advance(2);
            if let Some((event, data)) = parse(&event) {
                replicas.take(name, event, data)?;
            }
        }
        if buffer.len() > ANSWER_MAX {
            return Err(Some(Trouble::TooLong));
        }
    }
}

/// An overview that another replica takes: what is too much is left out at the ends of its lists.
pub(in crate::admin) fn fitted(mut overview: Value, most: usize) -> Value {
    for (pointer, lists) in [("/proxy", &PROXY[..]), ("/live", &LIVE[..])] {
        if let Some(part) = overview.pointer_mut(pointer) {
            *part = merge::fit(part.take(), lists, most / 2);
        }
    }
    overview
}

/// Name and data of an event.
fn parse(event: &Bytes) -> Option<(&str, &[u8])> {
    let rest = event.strip_prefix(b"event: ")?;
    let end = memchr::memchr(b'\n', rest)?;
    let (name, data) = rest.split_at_checked(end)?;
    Some((std::str::from_utf8(name).ok()?, data.strip_prefix(b"\ndata: ")?))
}

fn report(shared: &Shared, fleet: &Fleet, known: &BTreeMap<String, Known>) -> Value {
    let own = json!({ "replica": &*shared.fleet.owner, "self": true, "answered": true, "running": shared.telemetry.live().running() });
    let others = known.values().filter(|known| !matches!(known.standing, Standing::Twin));
    let rows = others.clone().map(|known| {
        let (answered, trouble) = match &known.standing {
            Standing::Asked => (None, None),
            Standing::Absent(trouble, since) => (Some(false), Some((trouble, since))),
            Standing::Live | Standing::Twin => (Some(true), None),
        };
        json!({
            "replica": known.mirror.replica(),
            "admin": known.peer.address.as_ref().map(ToString::to_string),
            "self": false,
            "answered": answered,
            "running": known.mirror.running(),
            "trouble": trouble.map(|(trouble, _)| trouble.to_string()),
            "absent_since": trouble.map(|(_, since)| peers::at(*since)),
        })
    });
    json!({
        "name": &*fleet.name,
        "replica": &*shared.fleet.owner,
        "replicas": std::iter::once(own).chain(rows).collect::<Vec<_>>(),
        "absent": others.filter(|known| matches!(known.standing, Standing::Absent(..))).map(|known| known.mirror.replica()).collect::<Vec<_>>(),
    })
}
