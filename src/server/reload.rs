//! Reloading: read → check → guard → install, one at a time, and never worse than before.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pingora::server::ShutdownWatch;
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::config_source::{self, Files, Origin, Source};
use super::drain::came;
use super::systemd;
use super::tls::{self, Certificates};
use super::watch_files::Watch;
use crate::admin::control::{Reload, ReloadRequest, ReloadStatus};
use crate::config::{self, Moment, Settings};
use crate::proxy::Shared;
use crate::telemetry::Names;

/// Brings new configurations into effect. There is one, so reloads never overlap.
pub(super) struct Reloader {
    shared: Arc<Shared>,
    source: Source,
    /// What the process began with, as it was read: changes that need a restart are told against it.
    boot: Settings,
    /// Present when the listeners speak TLS.
    certificates: Option<Arc<Certificates>>,
    status: Arc<ArcSwap<ReloadStatus>>,
    /// The files as they were when last looked at, and as they were when last installed.
    seen: Files,
    installed: Files,
}

impl Reloader {
    /// `boot` and `files` are what generation 1 was made of, `boot` before ports were picked.
    pub(super) fn new(
        shared: Arc<Shared>,
        source: Source,
        boot: Settings,
        files: Files,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        let status = ReloadStatus { installed: Some(SystemTime::now()), ..ReloadStatus::default() };
        let status = Arc::new(ArcSwap::from_pointee(status));
        Self { shared, source, boot, certificates, status, installed: files.clone(), seen: files }
    }

    pub(super) fn status(&self) -> Arc<ArcSwap<ReloadStatus>> {
        Arc::clone(&self.status)
    }

    /// Reloads at each file change, SIGHUP and request, until `stop`.
    pub(super) async fn run(&mut self, requests: &mut mpsc::Receiver<ReloadRequest>, mut stop: ShutdownWatch) {
        let mut watch = Watch::new();
        watch.follow(self.seen.paths());
        let mut hangup = signal(SignalKind::hangup()).ok();
        let stopped = async move {
            // An error means that the server is gone: a stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => return,
                () = watch.changed() => self.look(),
                () = came(&mut hangup) => {
                    tracing::info!(event = "config.sighup", "reading the configuration again");
                    self.reload(false);
                }
                request = requests.recv() => match request {
                    // The asker may have given up waiting.
                    Some(request) => { let _ = request.answer.send(self.reload(request.force)); }
                    None => return,
                },
            }
            if watch.follow(self.seen.paths()) {
                // What came there before it was watched.
                self.look();
                watch.follow(self.seen.paths());
            }
        }
    }

    /// Reloads when a file's content is another.
    fn look(&mut self) {
        let now = self.seen.look_again();
        if now != self.seen {
            self.reload(false);
        }
    }

    /// Reads the configuration and brings it into effect if it is good; the service manager hears of it.
    pub(super) fn reload(&mut self, force: bool) -> Reload {
        systemd::reloading();
        let reload = self.read_again(force);
        systemd::ready();
        reload
    }

    fn read_again(&mut self, force: bool) -> Reload {
        if matches!(self.source.origin, Origin::Upstream(_)) {
            tracing::info!(event = "config.no_file", "no config file to read: the configuration came from --upstream");
            return Reload::NoFile;
        }
        let read = self.source.read(Moment::Reload);
        let reload = match read.settings {
            Ok(settings) => self.consider(settings, &read.files, force),
            Err(problems) => Reload::Failed { problems },
        };
        // Files that a broken configuration does not name any more are still watched: their repair may be the answer.
        let failed = matches!(reload, Reload::Failed { .. });
        self.seen = if failed { self.seen.look_again().with(&read.files) } else { read.files };
        self.tell(&reload);
        reload
    }

    fn consider(&mut self, mut settings: Settings, files: &Files, force: bool) -> Reload {
        let needs_restart = config::needs_restart(&self.boot, &settings);
        let current = self.shared.generation.load_full();
        keep_what_needs_a_restart(&mut settings, &current.settings);
        let certificate = match self.next_certificate(&settings, files) {
            Ok(certificate) => certificate,
            Err(problem) => return Reload::Failed { problems: vec![problem] },
        };
        let authorities_differ = files.differ(&self.installed, config_source::authority_files(&settings));
        let settings_differ = settings != current.settings || authorities_differ;
        if settings_differ
            && !force
            && let Err(reason) = config::guard(&current.settings, &settings)
        {
            return Reload::Refused { reason: format!("{}: {reason}", self.source) };
        }
        if let Err(problem) =
            self.shared.limiter.configure(&settings).and_then(|()| self.shared.fleet.configure(&settings))
        {
            return Reload::Failed { problems: vec![problem] };
        }
        let certificate_differs = certificate.is_some();
        if let (Some(certificates), Some(next)) = (&self.certificates, certificate) {
            certificates.replace(next);
        }
        self.installed = files.clone();
        self.note_restart(needs_restart);
        if settings_differ || certificate_differs {
            Reload::Installed { generation: self.shared.install(settings) }
        } else {
            Reload::Unchanged { generation: current.number }
        }
    }

    /// The certificate to change to, where its files are not what they were.
    fn next_certificate(&self, settings: &Settings, files: &Files) -> Result<Option<CertifiedKey>, String> {
        match &settings.server.tls {
            Some(named) if files.differ(&self.installed, config_source::tls_files(settings)) => {
                tls::read(named).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Named once, and kept for the admin address until it is undone.
    fn note_restart(&self, needs_restart: Vec<String>) {
        let mut status = ReloadStatus::clone(&self.status.load());
        for change in needs_restart.iter().filter(|change| !status.needs_restart.contains(change)) {
            tracing::warn!(event = "config.needs_restart", change, "this change takes effect at the next restart");
        }
        status.needs_restart = needs_restart;
        self.status.store(Arc::new(status));
    }

    fn tell(&self, reload: &Reload) {
        let mut status = ReloadStatus::clone(&self.status.load());
        let metrics = self.shared.telemetry.metrics();
        match reload {
            Reload::Installed { generation } => {
                tracing::info!(event = "config.reloaded", generation, "configuration reloaded");
                status.installed = Some(SystemTime::now());
                status.last_error.clear();
                metrics.reload_result(true);
                metrics.generation(*generation);
                self.follow();
            }
            Reload::Unchanged { generation } => {
                tracing::info!(
                    event = "config.unchanged",
                    generation,
                    "the configuration says what is in effect already"
                );
                status.last_error.clear();
                metrics.reload_unchanged();
            }
            Reload::NoFile => {}
            Reload::Failed { problems } => {
                for problem in problems {
                    tracing::error!(
                        event = "config.rejected",
                        problem,
                        "configuration not reloaded, the last good one stays"
                    );
                }
                status.last_error.clone_from(problems);
                metrics.reload_result(false);
            }
            Reload::Refused { reason } => {
                tracing::error!(
                    event = "config.rejected",
                    reason,
                    "configuration refused, the last one stays; POST /api/reload?force=true takes it"
                );
                status.last_error = vec![reason.clone()];
                metrics.reload_result(false);
            }
        }
        self.status.store(Arc::new(status));
    }

    /// Telemetry follows the configuration: what is slow, and whose series there are.
    fn follow(&self) {
        let generation = self.shared.generation.load();
        let settings = &generation.settings;
        let telemetry = &self.shared.telemetry;
        telemetry.apply(&settings.telemetry);
        let routes: Vec<&str> = settings.routes.iter().map(|route| &*route.name).collect();
        let upstreams: Vec<&str> = settings.upstreams.iter().map(|upstream| &*upstream.name).collect();
        let limits: Vec<&str> = settings.limits.iter().map(|limit| &*limit.name).collect();
        let variants: Vec<&str> =
            settings.routes.iter().flat_map(|route| &route.targets).map(|target| &*target.name).collect();
        let names = Names { routes: &routes, upstreams: &upstreams, variants: &variants, limits: &limits };
        telemetry.metrics().retain(names);
        telemetry.live().hints().retain(&upstreams);
        telemetry.live().copies().retain(&routes);
    }
}

/// The configuration in effect shows what is in effect, not what a restart would bring.
fn keep_what_needs_a_restart(settings: &mut Settings, current: &Settings) {
    settings.server.listen.clone_from(&current.server.listen);
    settings.server.admin.clone_from(&current.server.admin);
    settings.server.state_dir.clone_from(&current.server.state_dir);
    if settings.server.tls.is_some() != current.server.tls.is_some() {
        settings.server.tls.clone_from(&current.server.tls);
    }
}
