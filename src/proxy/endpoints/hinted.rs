//! What an upstream makes of the hints of other replicas.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Member;
use super::endpoint_pool::EndpointPool;
use super::hints;
use crate::policy::hints::Place;

impl EndpointPool {
    /// The places that another replica means: the same address, or all of the endpoint where its name stands for others here. What is
    /// reached without leaving the machine is meant only by a replica that `is_here` too.
    pub(crate) fn meant(&self, place: &Place, is_here: bool) -> Vec<Arc<Member>> {
        let of_endpoint = self.members().filter(|member| *member.place.endpoint == *place.endpoint);
        let mut meant: Vec<Arc<Member>> = of_endpoint.filter(|member| is_here || !member.is_local()).collect();
        if meant.iter().any(|member| member.address == place.address) {
            meant.retain(|member| member.address == place.address);
        }
        meant
    }

    /// Another replica was told by this place to wait for so long. Whether that is news.
    pub(crate) fn told_overloaded(&self, member: &Member, left: Duration) -> bool {
        member.state().load.penalise_as_told(left, self.now())
    }

    /// Another replica has had trouble with this place: its health is to be checked soon.
    pub(crate) fn want_check(&self, member: &Member) {
        self.hinted_checks().want(member);
    }

    /// A check of a place begins.
    pub(crate) fn check_begins(&self, member: &Member) {
        self.hinted_checks().begins(member, self.now());
    }

    /// Resolves once hints ask for checks that are due: of these places, which counts as their begin.
    pub(crate) async fn wanted_checks(&self) -> Vec<Arc<Member>> {
        loop {
            let due = self.hinted_checks().due(self.now());
            let is_due = |member: &Arc<Member>| due.now.contains(&hints::called(member));
            let members: Vec<Arc<Member>> = self.members().filter(is_due).collect();
            if !members.is_empty() {
                return members;
            }
            let later = async {
                match due.later {
                    Some(later) => tokio::time::sleep(later.saturating_sub(self.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.hinted_checks().more() => {}
                () = later => {}
            }
        }
    }
}
