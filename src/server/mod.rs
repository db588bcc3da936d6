//! The composition root: listeners, background work, reload and the way down, put together from the rooms below.

mod background;
mod banner;
mod config_source;
mod drain;
mod listen;
mod listener_control;
mod listening_service;
mod persistence;
mod reload;
mod state_dir;
mod symlinks;
mod systemd;
mod tls;
mod upgrade;
mod watch_files;

use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub use banner::Style;
pub use config_source::{Origin, Source};
pub use drain::Exit;

use crate::admin::{AdminApp, Control};
use crate::config::address::Listen;
use crate::config::{Moment, Settings};
use crate::llm::dialect::shape;
use crate::proxy::{ProxyApp, Shared};
use crate::telemetry::Telemetry;
use background::Background;
use drain::SignalWatch;
use listen::Bound;
use listener_control::ListenerControl;
use listening_service::Prebound;
use reload::Reloader;
use tls::Certificates;

/// Read buffer of a client connection, in bytes. Heads and bodies are read into buffers of their own, larger than any that
/// would stand before them: none is kept for the life of a stream.
const CLIENT_READ_BUFFER: usize = 0;

/// Write buffer of a client connection, in bytes. Every event is flushed, so more than an event's worth only costs memory.
const CLIENT_WRITE_BUFFER: usize = 2 * 1024;

/// After the last stream, tasks get so long to end before their threads are left behind. Whole seconds are all that
/// pingora knows.
const RUNTIME_SHUTDOWN_S: u64 = 1;

/// At start, names are looked up for so long at most before the listeners open anyway.
const FIRST_LOOKUP_TIMEOUT: Duration = Duration::from_secs(6);

/// The last spans and log lines get so long to be written.
const TELEMETRY_FLUSH: Duration = Duration::from_secs(5);

/// The same after a second signal.
const TELEMETRY_FLUSH_FORCED: Duration = Duration::from_millis(200);

/// The file mode of a unix socket on which the admin address is.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// Reloads that may wait for the one under way.
const RELOADS_WAITING_MAX: usize = 1;

/// What to run.
pub struct Run {
    pub source: Source,
    /// How to tell on stdout where to point a frontend.
    pub style: Style,
    /// Take the listening sockets over from the running process.
    pub upgrade: bool,
}

/// Runs the proxy until a signal ends it, and tells how it ended. `telemetry` is made from the settings, before the first
/// listener opens.
///
/// # Errors
/// What kept it from starting, one problem a line.
pub fn run(run: &Run, telemetry: impl FnOnce(&Settings) -> Result<Arc<Telemetry>, String>) -> Result<Exit, String> {
    let read = run.source.read(Moment::Start);
    let boot = read.settings.map_err(|problems| problems.join("\n"))?;
    let sockets = Sockets::open(&boot, run.upgrade)?;
    let mut settings = boot.clone();
    settings.server.listen = sockets.data.iter().map(|bound| bound.address.clone()).collect();
    settings.server.admin = sockets.admin.address.clone();
    let certificates = settings.server.tls.as_ref().map(Certificates::load).transpose()?;
    let telemetry = telemetry(&settings)?;
    let shared = Shared::new(settings.clone(), Arc::clone(&telemetry));
    shared.limiter.configure(&settings)?;
    shared.fleet.configure(&settings)?;
    shared.fleet.listens_at(&settings.server.admin);
    if let Some(complaint) = state_dir::complaint(&settings.server.state_dir) {
        let path = settings.server.state_dir.display();
        tracing::warn!(event = "state_dir.open", %path, "server.state_dir is not this user's alone: {complaint}");
    }
    persistence::restore(&shared);
    prepare(&shared);
    banner::print(run.style, &settings);

    let reloader =
        Reloader::new(Arc::clone(&shared), run.source.clone(), boot, read.files, certificates.as_ref().map(Arc::clone));
    let exit = serve(&shared, sockets, certificates.as_ref(), reloader)?;
    settle_limits(&shared);
    telemetry.shutdown(if exit == Exit::Forced { TELEMETRY_FLUSH_FORCED } else { TELEMETRY_FLUSH });
    Ok(exit)
}

/// The sockets of all listeners.
struct Sockets {
    data: Vec<Bound>,
    admin: Bound,
    /// Those of which the service manager is the owner: it listens on when this process has ended.
    passed: HashSet<String>,
}

impl Sockets {
    fn open(settings: &Settings, upgrade: bool) -> Result<Self, String> {
        let server = &settings.server;
        let mut wanted = HashSet::new();
        for address in server.listen.iter().chain([&server.admin]) {
            let picks_a_port = matches!(address, Listen::Tcp(at) if at.port() == 0);
            if !wanted.insert(listen::key(address)) && !picks_a_port {
                return Err(format!("{address} is named twice among the listen and admin addresses"));
            }
        }
        let addresses: Vec<Listen> = server.listen.iter().chain([&server.admin]).cloned().collect();
        let (inherited, passed) = if upgrade {
            (upgrade::receive(&server.state_dir, &addresses)?, HashSet::new())
        } else {
            let passed = systemd::sockets(&addresses)?;
            let names = addresses.iter().map(listen::key).filter(|name| passed.get(name).is_some()).collect();
            (passed, names)
        };
        let open = |address: &Listen, mode: u32| {
            Bound::open(address, mode, Some(&inherited)).map_err(|error| error.to_string())
        };
        let data = server.listen.iter().map(|address| open(address, server.socket_mode)).collect::<Result<_, _>>()?;
        // There is no token on a socket file: its permissions take the place.
        Ok(Self { data, admin: open(&server.admin, ADMIN_SOCKET_MODE)?, passed })
    }
}

/// After the last request: what it used is told to those who keep the limits.
fn settle_limits(shared: &Shared) {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        runtime.block_on(async {
            shared.limiter.finish().await;
            shared.leave_fleet().await;
        });
    }
}

/// What must have happened before the first request: names are looked up, the keys of tokens are fetched, and a SIGHUP
/// does not end the process.
fn prepare(shared: &Shared) {
    shape::load();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::warn!(%error, "names are not looked up before the first request");
            return;
        }
    };
    runtime.block_on(async {
        // Registering is enough: from now on the signal's default action is gone for the life of the process.
        if let Err(error) = signal(SignalKind::hangup()) {
            tracing::warn!(%error, "cannot listen for SIGHUP");
        }
        // A slow name server must not keep everything else from being served.
        let _ = tokio::time::timeout(FIRST_LOOKUP_TIMEOUT, async {
            tokio::join!(shared.resolve_all(), shared.fetch_keys())
        })
        .await;
    });
    // A lookup that hangs must not hang us.
    runtime.shutdown_background();
}

fn serve(
    shared: &Arc<Shared>,
    sockets: Sockets,
    certificates: Option<&Arc<Certificates>>,
    reloader: Reloader,
) -> Result<Exit, String> {
    let settings = shared.generation.load().settings.clone();
    let listeners = Arc::new(ListenerControl::default());
    let (reloads, requests) = mpsc::channel(RELOADS_WAITING_MAX);
    let control = Control { reloads, status: reloader.status() };

    let mut server = Server::new_with_opt_and_conf(None, server_conf());
    server.add_service(data_service(shared, sockets.data, certificates, &listeners)?.with_watchdog());
    server.add_service(admin_service(shared, sockets.admin, control, &listeners));
    server.add_service(Background {
        shared: Arc::clone(shared),
        listeners: Arc::clone(&listeners),
        reloader,
        requests,
    });

    let exit = Arc::new(OnceLock::new());
    let shutdown_signal = Box::new(SignalWatch {
        shared: Arc::clone(shared),
        listeners: Arc::clone(&listeners),
        state_dir: settings.server.state_dir.clone(),
        exit: Arc::clone(&exit),
    });
    server.run(RunArgs { shutdown_signal });
    persistence::save(shared, &listeners);

    if listeners.handed_over.get().is_none() {
        let ours = |address: &&Listen| !sockets.passed.contains(&listen::key(address));
        for address in settings.server.listen.iter().chain([&settings.server.admin]).filter(ours) {
            listen::remove_socket_file(address);
        }
    }
    // Pingora runs until the signal watch has told it to stop.
    Ok(exit.get().copied().unwrap_or(Exit::Failed))
}

fn server_conf() -> ServerConf {
    ServerConf {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        // The drain has waited already when pingora is told to stop.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(RUNTIME_SHUTDOWN_S),
        ..ServerConf::default()
    }
}

fn data_service(
    shared: &Arc<Shared>,
    sockets: Vec<Bound>,
    certificates: Option<&Arc<Certificates>>,
    listeners: &Arc<ListenerControl>,
) -> Result<Prebound<ProxyApp>, String> {
    let mut service = pingora::services::listening::Service::new("data".to_owned(), ProxyApp::new(Arc::clone(shared)));
    let mode = shared.generation.load().settings.server.socket_mode;
    for bound in &sockets {
        let name = listen::key(&bound.address);
        let listener = match (&bound.address, certificates) {
            // A unix socket stays on this machine: TLS would protect nothing.
            (Listen::Unix(_), _) => ListenerConfig::uds(name).permissions(Permissions::from_mode(mode)),
            (Listen::Tcp(_), None) => ListenerConfig::tcp(name),
            (Listen::Tcp(_), Some(certificates)) => ListenerConfig::tcp(name).tls(certificates.listener_settings()?),
        };
        let buffers = L4BufferSettings::new(CLIENT_READ_BUFFER, CLIENT_WRITE_BUFFER);
        service.add_listener(listener.l4_buffer(buffers));
    }
    Ok(Prebound::new(service, sockets, listeners.data.subscribe(), Arc::clone(listeners)))
}

fn admin_service(
    shared: &Arc<Shared>,
    socket: Bound,
    control: Control,
    listeners: &Arc<ListenerControl>,
) -> Prebound<AdminApp> {
    let app = AdminApp::new(Arc::clone(shared), control, socket.address.is_local());
    let mut service = pingora::services::listening::Service::new("admin".to_owned(), app);
    service.threads = Some(1);
    let name = listen::key(&socket.address);
    service.add_listener(match &socket.address {
        Listen::Unix(_) => ListenerConfig::uds(name).permissions(Permissions::from_mode(ADMIN_SOCKET_MODE)),
        Listen::Tcp(_) => ListenerConfig::tcp(name),
    });
    Prebound::new(service, vec![socket], listeners.admin.subscribe(), Arc::clone(listeners))
}
