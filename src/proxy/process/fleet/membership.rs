//! Which fleet this process is of, and who else is.

use std::sync::{Arc, PoisonError, RwLock};

use super::link::Link;
use super::presence::Member;
use crate::config::Settings;
use crate::config::fleet::Fleet as Configured;
use crate::config::limits::LimitStore;

/// The fleet that this process is one of, if it is of any.
pub struct Fleet {
    /// This replica: 16 hexadecimal digits, another at each start.
    pub owner: Arc<str>,
    joined: RwLock<Joined>,
}

/// A fleet as it is configured.
#[derive(Default)]
struct Joined {
    of: Option<(LimitStore, Configured)>,
    link: Option<Arc<Link>>,
}

/// How a replica stands to its fleet.
#[derive(Debug, Clone)]
pub struct FleetView {
    pub name: Arc<str>,
    /// Who is alive, as far as is known; most recent words first.
    pub members: Arc<[Member]>,
    /// What keeps Redis from being used; `None` while it answers.
    pub trouble: Option<String>,
}

impl Default for Fleet {
    fn default() -> Self {
        // The last 64 bits of a UUID are random.
        let (_, random) = uuid::Uuid::now_v7().as_u64_pair();
        Self { owner: format!("{random:016x}").into(), joined: RwLock::default() }
    }
}

impl Fleet {
    /// Follows the configuration: which fleet this is.
    ///
    /// # Errors
    /// What is wrong with the address of Redis; the fleet stays what it was then.
    pub fn configure(&self, settings: &Settings) -> Result<(), String> {
        let mut joined = self.joined.write().unwrap_or_else(PoisonError::into_inner);
        let of = settings.fleet.clone().map(|fleet| (settings.limit_store.clone(), fleet));
        if joined.of != of {
            let link = of.as_ref().map(|(store, fleet)| Link::new(store, fleet, &self.owner)).transpose()?.flatten();
            *joined = Joined { of, link: link.map(Arc::new) };
        }
        Ok(())
    }

    /// How this replica stands to its fleet; `None`: it is of none.
    pub fn view(&self) -> Option<FleetView> {
        let link = self.link()?;
        Some(FleetView { name: Arc::clone(&link.name), members: link.members(), trouble: link.trouble() })
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.joined.read().unwrap_or_else(PoisonError::into_inner).link.clone()
    }
}
