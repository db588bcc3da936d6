//! Which fleet this process is of, and who else is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::link::Link;
use super::presence::Roster;
use crate::config::Settings;
use crate::config::address::Listen;
use crate::config::fleet::{Fleet as Configured, PeerAddress};
use crate::config::limits::LimitStore;

/// The fleet that this process is one of, if it is of any.
pub struct Fleet {
    /// This replica: 16 hexadecimal digits, another at each start.
    pub owner: Arc<str>,
    /// Where the admin address is, once it is open.
    admin: OnceLock<Listen>,
    joined: RwLock<Joined>,
    /// Where others reach the admin address, if that had to be found out.
    found: Mutex<Option<PeerAddress>>,
}

/// A fleet as it is configured.
#[derive(Default)]
struct Joined {
    of: Option<(LimitStore, Arc<Configured>)>,
    link: Option<Arc<Link>>,
}

/// How a replica stands to its fleet.
#[derive(Debug, Clone)]
pub struct FleetView {
    pub name: Arc<str>,
    /// Who is alive and who is not, as far as is known.
    pub roster: Roster,
    /// What keeps Redis from being used; `None` while it answers.
    pub trouble: Option<String>,
}

impl Default for Fleet {
    fn default() -> Self {
        // The last 64 bits of a UUID are random.
        let (_, random) = uuid::Uuid::now_v7().as_u64_pair();
        Self {
            owner: format!("{random:016x}").into(),
            admin: OnceLock::new(),
            joined: RwLock::default(),
            found: Mutex::default(),
        }
    }
}

impl Fleet {
    /// Follows the configuration: which fleet this is.
    ///
    /// # Errors
    /// What is wrong with the address of Redis; the fleet stays what it was then.
    pub fn configure(&self, settings: &Settings) -> Result<(), String> {
        let mut joined = self.joined.write().unwrap_or_else(PoisonError::into_inner);
        let of = settings.fleet.clone().map(|fleet| (settings.limit_store.clone(), Arc::new(fleet)));
        let is_same_place = |(store, fleet): &(LimitStore, Arc<Configured>)| {
            joined.of.as_ref().is_some_and(|(old, was)| old == store && was.name == fleet.name)
        };
        let link = match &of {
            Some(of) if is_same_place(of) => joined.link.take(),
            Some((store, fleet)) => Link::new(store, fleet, &self.owner)?.map(Arc::new),
            None => None,
        };
        *joined = Joined { of, link };
        Ok(())
    }

    /// The admin address is open at `admin`.
    pub fn listens_at(&self, admin: &Listen) {
        // It stays where it is for the life of the process.
        let _ = self.admin.set(admin.clone());
    }

    /// The fleet as it is configured; `None`: this process is of none.
    pub fn configured(&self) -> Option<Arc<Configured>> {
        let joined = self.joined.read().unwrap_or_else(PoisonError::into_inner);
        joined.of.as_ref().map(|(_, fleet)| Arc::clone(fleet))
    }

    /// How this replica stands to its fleet, where that has a Redis; `None`: it has none, or there is no fleet.
    pub fn view(&self) -> Option<FleetView> {
        let link = self.link()?;
        Some(FleetView { name: Arc::clone(&link.name), roster: link.roster(), trouble: link.trouble() })
    }

    /// Where others reach this replica's admin address; `None`: it is on a unix socket, or it is not known yet.
    pub fn advertised(&self) -> Option<PeerAddress> {
        let configured = self.configured().and_then(|fleet| fleet.advertise.clone());
        let bound = || self.bound().filter(|bound| !bound.ip().is_unspecified()).map(PeerAddress::from);
        configured.or_else(bound).or_else(|| self.found.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Finds out where others reach the admin address, if nothing else says so.
    pub(super) async fn find_itself(&self, link: &Link) {
        let Some(bound) = self.bound().filter(|_| self.advertised().is_none()) else { return };
        if let Some(ip) = link.own_address().await {
            let found = PeerAddress::from(SocketAddr::new(ip, bound.port()));
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.joined.read().unwrap_or_else(PoisonError::into_inner).link.clone()
    }

    fn bound(&self) -> Option<SocketAddr> {
        match self.admin.get()? {
            Listen::Tcp(address) => Some(*address),
            Listen::Unix(_) => None,
        }
    }
}
