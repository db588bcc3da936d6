//! `[server]` and `[telemetry]`.

use super::super::address::{Endpoint, EndpointAddress, Listen};
use super::super::defaults;
use super::super::file::{ContinueTracesWord, OtlpProtocolWord, ServerTable, SignalWord, TelemetryTable, TlsTable};
use super::super::otlp::{OtlpProtocol, Signal};
use super::super::settings::{ContinueTraces, Server, Telemetry, Tls};
use super::super::units::{At, OneOrMany, SizeText, Table};
use super::{Checker, admin_problem, secret};

impl Checker<'_> {
    pub(super) fn server(&mut self, table: Option<&Table<ServerTable>>) -> Server {
        let nothing = ServerTable::default();
        let file = table.map_or(&nothing, |table| &table.value);
        let listen = self.listeners(file.listen.as_ref());
        let admin = self.admin(file.admin.as_ref(), &listen);
        let trusted_proxies = file.trusted_proxies.iter().filter_map(|at| self.checked(&at.span, at.value.parse()));
        let trusted_proxies = trusted_proxies.collect();
        let server = Server {
            listen,
            admin,
            admin_token: self.admin_token(file.admin_token_env.as_ref()),
            max_body: self.size("max_body", file.max_body.as_ref(), defaults::MAX_BODY),
            max_upload: self.size("max_upload", file.max_upload.as_ref(), defaults::MAX_UPLOAD),
            max_buffered: self.max_buffered(file),
            max_connections: self.count("max_connections", file.max_connections.as_ref(), defaults::MAX_CONNECTIONS),
            max_streams: self.count("max_streams", file.max_streams.as_ref(), defaults::MAX_STREAMS),
            header_timeout: self.positive("header_timeout", file.header_timeout.as_ref(), defaults::HEADER_TIMEOUT),
            body_timeout: self.positive("body_timeout", file.body_timeout.as_ref(), defaults::BODY_TIMEOUT),
            write_timeout: self.positive("write_timeout", file.write_timeout.as_ref(), defaults::WRITE_TIMEOUT),
            drain_timeout: self.duration(file.drain_timeout.as_ref(), defaults::DRAIN_TIMEOUT),
            drain_websockets: self.duration(file.drain_websockets.as_ref(), defaults::DRAIN_WEBSOCKETS),
            trusted_proxies,
            continue_traces: match file.continue_traces.as_ref().map(|at| at.value) {
                None | Some(ContinueTracesWord::Trusted) => ContinueTraces::Trusted,
                Some(ContinueTracesWord::Always) => ContinueTraces::Always,
                Some(ContinueTracesWord::Link) => ContinueTraces::Link,
            },
            tls: file.tls.as_ref().and_then(|tls| self.tls(tls)),
            state_dir: match &file.state_dir {
                Some(at) => self.path(&at.value),
                None => defaults::state_dir(self.env),
            },
            socket_mode: file.socket_mode.as_ref().map_or(defaults::SOCKET_MODE, |at| self.socket_mode(at)),
            address_share: self.address_share(file.address_share.as_ref()),
            min_body_rate: file.min_body_rate.as_ref().map_or(defaults::MIN_BODY_RATE, |at| at.value.0),
        };
        self.admin_guarded(file, &server);
        server
    }

    fn listeners(&mut self, written: Option<&At<OneOrMany<String>>>) -> Vec<Listen> {
        let Some(at) = written else {
            return vec![Listen::Tcp(defaults::LISTEN)];
        };
        let single;
        let texts = match &at.value {
            OneOrMany::Many(texts) => texts.as_slice(),
            OneOrMany::One(text) => {
                single = [At { value: text.clone(), span: at.span.clone() }];
                single.as_slice()
            }
        };
        if texts.is_empty() {
            self.problem(&at.span, format!("`listen` is empty: leave it out for {}", defaults::LISTEN));
        }
        let mut listeners: Vec<Listen> = Vec::new();
        for text in texts {
            let Some(listen) = self.checked(&text.span, text.value.parse()) else { continue };
            if takes_same_place(&listeners, &listen) {
                self.problem(&text.span, format!("{listen} is listed twice"));
            }
            listeners.push(listen);
        }
        listeners
    }

    fn admin(&mut self, written: Option<&At<String>>, listeners: &[Listen]) -> Listen {
        let default = Listen::Tcp(defaults::ADMIN);
        let Some(at) = written else { return default };
        let Some(admin) = self.checked(&at.span, at.value.parse()) else { return default };
        if takes_same_place(listeners, &admin) {
            self.problem(&at.span, format!("`admin` cannot share {admin} with `listen`: take another port"));
        }
        admin
    }

    fn admin_token(&mut self, variable: Option<&At<String>>) -> Option<super::Secret> {
        let name = variable.map_or(defaults::ADMIN_TOKEN_ENV, |at| at.value.as_str());
        let span = variable.map_or(0..0, |at| at.span.clone());
        if !super::is_variable_name(name) {
            self.problem(&span, "this must be the name of an environment variable, as \"STREAMGAUGE_ADMIN_TOKEN\"");
            return None;
        }
        let token = (self.env)(name)?;
        self.checked(&span, secret(&token).map_err(|wrong| format!("the admin token's environment variable {wrong}")))
    }

    /// Off loopback the admin address needs a token; where the variable itself was refused, that was said already.
    fn admin_guarded(&mut self, file: &ServerTable, server: &Server) {
        let span = file.admin.as_ref().map_or(0..0, |at| at.span.clone());
        let Some(message) = admin_problem(server) else { return };
        match &file.admin_token_env {
            _ if server.admin_token.is_some() => self.problem(&span, message),
            None => self.problem(&span, message),
            Some(at) if super::is_variable_name(&at.value) && (self.env)(&at.value).is_none() => {
                let message = "this environment variable is not set, and the admin address can be reached from other \
                               machines: set it, or listen on loopback";
                self.problem(&at.span, message);
            }
            Some(_) => {}
        }
    }

    fn socket_mode(&mut self, at: &At<String>) -> u32 {
        let digits = at.value.len() == 4 && at.value.starts_with('0');
        match u32::from_str_radix(&at.value, 8) {
            Ok(mode) if digits && mode & 0o600 == 0o600 && mode & !0o666 == 0 => mode,
            _ => {
                self.problem(&at.span, "`socket_mode`: write who may connect as \"0600\", \"0660\" or \"0666\"");
                defaults::SOCKET_MODE
            }
        }
    }

    fn address_share(&mut self, written: Option<&At<f64>>) -> f64 {
        let Some(at) = written else { return defaults::ADDRESS_SHARE };
        if !(at.value > 0.0 && at.value <= 1.0) {
            self.problem(&at.span, "`address_share`: a share is more than 0 and at most 1, which binds nobody");
            return defaults::ADDRESS_SHARE;
        }
        at.value
    }

    fn tls(&mut self, table: &Table<TlsTable>) -> Option<Tls> {
        let (Some(cert), Some(key)) = (&table.value.cert, &table.value.key) else {
            self.problem(&table.span, "`tls` needs both: { cert = \"cert.pem\", key = \"key.pem\" }");
            return None;
        };
        Some(Tls { cert: self.pem(cert, "CERTIFICATE"), key: self.pem(key, "PRIVATE KEY") })
    }

    /// Where it is not written it grows with `max_body`.
    fn max_buffered(&mut self, file: &ServerTable) -> u64 {
        let body = file.max_body.as_ref().map_or(defaults::MAX_BODY, |at| at.value.0);
        let all = self.size("max_buffered", file.max_buffered.as_ref(), defaults::MAX_BUFFERED.max(body));
        if let Some(at) = file.max_buffered.as_ref().filter(|_| (1..body).contains(&all)) {
            self.problem(&at.span, "`max_buffered` is smaller than `max_body`: no body of that size could come in");
        }
        all
    }

    fn size(&mut self, key: &str, written: Option<&At<SizeText>>, default: u64) -> u64 {
        let Some(at) = written else { return default };
        if at.value.0 == 0 {
            self.problem(&at.span, format!("`{key}`: zero would let no body pass"));
        }
        at.value.0
    }

    fn count(&mut self, key: &str, written: Option<&At<u32>>, default: u32) -> usize {
        let count = written.map_or(default, |at| at.value);
        if let (0, Some(at)) = (count, written) {
            self.problem(&at.span, format!("`{key}`: zero would let nobody in"));
        }
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    fn signals(&mut self, written: Option<&At<Vec<At<SignalWord>>>>) -> Vec<Signal> {
        let Some(at) = written else { return defaults::SIGNALS.to_vec() };
        let mut signals = Vec::new();
        for word in &at.value {
            let signal = match word.value {
                SignalWord::Traces => Signal::Traces,
                SignalWord::Metrics => Signal::Metrics,
                SignalWord::Logs => Signal::Logs,
            };
            if signals.contains(&signal) {
                self.problem(&word.span, format!("`signals`: \"{}\" is listed twice", signal.as_str()));
            } else {
                signals.push(signal);
            }
        }
        signals
    }

    pub(super) fn telemetry(&mut self, table: Option<&Table<TelemetryTable>>) -> Telemetry {
        let nothing = TelemetryTable::default();
        let file = table.map_or(&nothing, |table| &table.value);
        if let Some(at) = file.service_name.as_ref().filter(|at| at.value.trim().is_empty()) {
            self.problem(&at.span, "`service_name` is empty");
        }
        let otlp_endpoint = file.otlp_endpoint.as_ref().and_then(|at| {
            let endpoint = self.checked(&at.span, at.value.parse::<Endpoint>())?;
            if matches!(endpoint.address, EndpointAddress::Unix(_)) {
                self.problem(&at.span, "telemetry is sent over http:// or https://, not through a unix socket");
            }
            Some(at.value.clone())
        });
        if let Some(at) = file.sample_ratio.as_ref().filter(|at| !(0.0..=1.0).contains(&at.value)) {
            self.problem(&at.span, "`sample_ratio` must be from 0 (none) to 1 (all)");
        }
        Telemetry {
            service_name: file.service_name.as_ref().map_or(defaults::SERVICE_NAME, |at| at.value.trim()).to_owned(),
            otlp_endpoint,
            otlp_protocol: match file.otlp_protocol.as_ref().map(|at| at.value) {
                None | Some(OtlpProtocolWord::HttpProtobuf) => OtlpProtocol::HttpProtobuf,
                Some(OtlpProtocolWord::Grpc) => OtlpProtocol::Grpc,
            },
            signals: self.signals(file.signals.as_ref()),
            sample_ratio: file.sample_ratio.as_ref().map(|at| at.value),
            slow_first_token: self.positive(
                "slow_first_token",
                file.slow_first_token.as_ref(),
                defaults::SLOW_FIRST_TOKEN,
            ),
            slow_gap: self.positive("slow_gap", file.slow_gap.as_ref(), defaults::SLOW_GAP),
            capture_content: file.capture_content.as_ref().is_some_and(|at| at.value),
        }
    }
}

/// Whether a listener is there already. Port 0 is a new port each time.
fn takes_same_place(listeners: &[Listen], new: &Listen) -> bool {
    let is_any_port = matches!(new, Listen::Tcp(address) if address.port() == 0);
    !is_any_port && listeners.contains(new)
}
