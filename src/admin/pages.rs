//! The pages of the admin address: what can be asked for, and who may.

use super::static_files::File;
use super::{canaries, levers};
use crate::policy::canary::Command;
use crate::policy::levers::Command as LeverCommand;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Live,
    /// A part of the live view, or of the login form.
    File(&'static File),
    Login,
    Logout,
    Metrics,
    /// The process runs.
    Healthy,
    /// It can serve.
    Ready,
    Streams,
    /// The live view's feed.
    Events,
    /// The last 24 hours.
    History,
    Upstreams,
    /// Who is of the fleet.
    Fleet,
    /// Where a session lives.
    Affinity,
    Limits,
    /// Whose prices count.
    Prices,
    Canaries,
    /// Something is to be done about one.
    Canary(Command),
    /// What is out of service by hand.
    Levers,
    /// Something is to be taken out, or put back.
    Lever(LeverCommand),
    Config,
    Reload,
}

impl Page {
    pub(super) fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Live,
            "/login" => Self::Login,
            "/logout" => Self::Logout,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthy,
            "/readyz" => Self::Ready,
            "/api/streams" => Self::Streams,
            "/api/streams/events" => Self::Events,
            "/api/history" => Self::History,
            "/api/upstreams" => Self::Upstreams,
            "/api/fleet" => Self::Fleet,
            "/api/affinity" => Self::Affinity,
            "/api/limits" => Self::Limits,
            "/api/prices" => Self::Prices,
            "/api/config" => Self::Config,
            "/api/reload" => Self::Reload,
            "/api/canaries" => Self::Canaries,
            "/api/levers" => Self::Levers,
            _ => {
                return File::find(path)
                    .map(Self::File)
                    .or_else(|| canaries::command(path).map(Self::Canary))
                    .or_else(|| levers::command(path).map(Self::Lever));
            }
        })
    }

    /// Asked for without a token, from everywhere: monitoring needs it, or whoever is about to log in, and it tells no secret.
    pub(super) fn is_public(self) -> bool {
        match self {
            Self::Metrics | Self::Healthy | Self::Ready | Self::Login | Self::Logout => true,
            Self::File(file) => file.is_public(),
            _ => false,
        }
    }

    /// What a machine looks at again and again.
    pub(super) fn is_monitoring(self) -> bool {
        matches!(self, Self::Metrics | Self::Healthy | Self::Ready)
    }

    /// It is a POST.
    pub(super) fn changes(self) -> bool {
        matches!(self, Self::Reload | Self::Canary(_) | Self::Lever(_) | Self::Login | Self::Logout)
    }
}
