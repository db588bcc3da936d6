//! `[[upstream]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::llm::dialect::shape::Recogniser;
use crate::llm::provider;

use super::super::address::host_and_port;
use super::super::address::{Endpoint, EndpointAddress};
use super::super::defaults;
use super::super::file::{AskUsageWord, ProtocolWord, UpstreamTable};
use super::super::read::Readable;
use super::super::secret::Secret;
use super::super::settings::{AskUsage, HostPolicy, Upstream, UpstreamProtocol};
use super::super::units::{At, Table};
use super::Checker;

/// An upstream, and what the checks of routes ask about it.
pub(super) struct Declared {
    pub(super) upstream: Arc<Upstream>,
    pub(super) called: Called,
}

/// What an upstream is called.
pub(super) enum Called {
    /// By its name.
    Name,
    /// Its name could not be read: it stands in one of these texts.
    Within(Vec<String>),
    /// Its name could not be read, and may be any.
    Anything,
}

impl Declared {
    pub(super) fn is_named(&self, name: &str) -> bool {
        matches!(self.called, Called::Name) && *self.upstream.name == *name
    }

    /// Whether a route may mean it by this name.
    pub(super) fn may_be(&self, name: &str) -> bool {
        match &self.called {
            Called::Name => false,
            Called::Within(texts) => texts.iter().any(|text| text.contains(name)),
            Called::Anything => true,
        }
    }
}

impl Checker<'_> {
    pub(super) fn upstreams(&mut self, readable: &Readable) -> Vec<Declared> {
        let tables = &readable.file.upstream;
        if tables.is_empty() && !readable.is_table_lost("upstream") {
            let message = "there is no [[upstream]]: say where the backend is, as [[upstream]] with \
                           url = \"http://127.0.0.1:8000\"";
            self.problem(&(0..0), message);
        }
        let mut taken = BTreeMap::new();
        let own = self.dialects(&readable.file.dialect);
        tables.iter().map(|table| self.upstream(table, readable, &mut taken, &own)).collect()
    }

    fn upstream(
        &mut self,
        table: &Table<UpstreamTable>,
        readable: &Readable,
        taken: &mut BTreeMap<String, ()>,
        own: &Arc<Recogniser>,
    ) -> Declared {
        let file = &table.value;
        let is_lost = |key| readable.is_lost(&table.span, key);
        let endpoints = self.endpoints(table, is_lost("url") || is_lost("urls"));
        let name = match (&file.name, endpoints.first()) {
            (Some(at), _) => self.name(at),
            (None, Some(first)) => default_name(first),
            (None, None) => String::new(),
        };
        let is_nameless = name.is_empty() || is_lost("name");
        let called = if is_nameless { called(table, readable) } else { Called::Name };
        if !is_nameless {
            let span = file.name.as_ref().map_or(&table.span, |at| &at.span);
            self.unique("upstream", &name, span, taken);
        }
        let stream = self.stream_rules(file.dialect.as_ref(), file.stream.as_ref(), own);
        let is_tls = endpoints.first().is_some_and(|endpoint| endpoint.tls);
        let upstream = Upstream {
            name: name.into(),
            host: self.host(file.host.as_ref(), is_tls),
            dialect: stream.dialect,
            provider: self.provider(file.provider.as_ref(), &endpoints),
            ask_usage: match file.ask_usage.as_ref().map(|at| at.value) {
                None | Some(AskUsageWord::Auto) => AskUsage::Auto,
                Some(AskUsageWord::Always) => AskUsage::Always,
                Some(AskUsageWord::Never) => AskUsage::Never,
            },
            protocol: match file.protocol.as_ref().map(|at| at.value) {
                None | Some(ProtocolWord::Auto) => UpstreamProtocol::Auto,
                Some(ProtocolWord::Http1) => UpstreamProtocol::Http1,
                Some(ProtocolWord::Http2) => UpstreamProtocol::Http2,
            },
            ping_interval: self.duration(file.ping_interval.as_ref(), defaults::PING_INTERVAL),
            ca: file.ca.as_ref().and_then(|at| self.ca(at, &endpoints)),
            api_key: self.api_key(file),
            stream: Arc::new(stream),
            health: file.health.as_ref().and_then(|health| self.health(health)),
            endpoints,
        };
        Declared { upstream: Arc::new(upstream), called }
    }

    fn endpoints(&mut self, table: &Table<UpstreamTable>, is_url_lost: bool) -> Vec<Endpoint> {
        let file = &table.value;
        let urls: Vec<&At<String>> = match (&file.url, &file.urls) {
            (Some(url), None) => vec![url],
            (None, Some(urls)) => urls.value.iter().collect(),
            (Some(_), Some(urls)) => {
                self.problem(&urls.span, "either `url` or `urls`, not both");
                return Vec::new();
            }
            (None, None) => Vec::new(),
        };
        if urls.is_empty() && !is_url_lost {
            let span = file.urls.as_ref().map_or(&table.span, |at| &at.span).clone();
            self.problem(&span, "this upstream has no `url`: say where it is, as url = \"http://127.0.0.1:8000\"");
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for at in urls {
            let parsed = at.value.parse().map_err(|wrong| format!("`url`: {wrong}"));
            let Some(endpoint) = self.checked::<Endpoint>(&at.span, parsed) else { continue };
            self.fits(&at.span, &endpoint, &endpoints);
            endpoints.push(endpoint);
        }
        endpoints
    }

    /// Endpoints of one upstream stand in for each other.
    fn fits(&mut self, span: &Range<usize>, endpoint: &Endpoint, others: &[Endpoint]) {
        if others.contains(endpoint) {
            self.problem(span, "this url is listed twice");
        }
        if others.first().is_some_and(|first| first.tls != endpoint.tls) {
            self.problem(span, "the urls of one upstream are all http or all https: write two [[upstream]]");
        }
    }

    fn host(&mut self, written: Option<&At<String>>, is_tls: bool) -> HostPolicy {
        let Some(at) = written else {
            return if is_tls { HostPolicy::Own } else { HostPolicy::Keep };
        };
        match at.value.to_ascii_lowercase().as_str() {
            "keep" => HostPolicy::Keep,
            "own" => HostPolicy::Own,
            name => {
                let checked = host_and_port(name);
                self.checked(
                    &at.span,
                    checked.map_err(|wrong| format!("`host` is \"keep\", \"own\" or a name: {wrong}")),
                );
                HostPolicy::Name(name.to_owned())
            }
        }
    }

    /// Endpoints of different providers have none in common.
    fn provider(&mut self, written: Option<&At<String>>, endpoints: &[Endpoint]) -> Option<Arc<str>> {
        let Some(at) = written else {
            let mut known = endpoints.iter().map(|endpoint| match &endpoint.address {
                EndpointAddress::Tcp { host, .. } => provider::at_host(host),
                EndpointAddress::Unix(_) => None,
            });
            let first = known.next().flatten()?;
            return known.all(|other| other == Some(first)).then(|| first.into());
        };
        if !provider::is_name(&at.value) {
            let message = "`provider` is a name of lower-case letters, digits, dots, dashes and underscores, as \"groq\" or \
                           \"azure.ai.openai\"";
            self.problem(&at.span, message);
        }
        Some(at.value.as_str().into())
    }

    fn ca(&mut self, at: &At<String>, endpoints: &[Endpoint]) -> Option<PathBuf> {
        if endpoints.first().is_some_and(|first| !first.tls) {
            self.problem(&at.span, "`ca` says whom to trust over https, and this upstream's url is not https");
            return None;
        }
        Some(self.pem(at, "CERTIFICATE"))
    }

    fn api_key(&mut self, file: &UpstreamTable) -> Option<Secret> {
        match (&file.api_key_env, &file.api_key_file) {
            (Some(_), Some(at)) => {
                self.problem(&at.span, "either `api_key_env` or `api_key_file`, not both");
                None
            }
            (Some(at), None) => self.secret_from_env(at),
            (None, Some(at)) => self.secret_from_file(at),
            (None, None) => None,
        }
    }
}

/// What an upstream may be called whose name could not be read: what its name or its urls say.
fn called(table: &Table<UpstreamTable>, readable: &Readable) -> Called {
    let file = &table.value;
    let urls = file.url.iter().chain(file.urls.iter().flat_map(|list| &list.value)).map(|at| at.value.clone());
    match readable.lost_texts(&table.span, &["name", "url", "urls"]) {
        Some(lost) => Called::Within(urls.chain(lost.into_iter().map(str::to_owned)).collect()),
        None => Called::Anything,
    }
}

fn default_name(endpoint: &Endpoint) -> String {
    match &endpoint.address {
        EndpointAddress::Tcp { .. } => endpoint.authority.clone(),
        EndpointAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
