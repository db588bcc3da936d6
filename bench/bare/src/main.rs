//! pingora's own proxy, with nothing added: what it costs is the engine's share of what Streamgauge costs.
//!
//! `bare LISTEN BACKEND THREADS`

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

/// As Streamgauge has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Bare {
    backend: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.backend, false, String::new())))
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [listen, backend, threads] = words.as_slice() else { return usage() };
    let (Ok(backend), Ok(threads)) = (backend.parse(), threads.parse()) else { return usage() };
    let conf = ServerConf { threads, upstream_keepalive_pool_size: 256, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let mut proxy = http_proxy_service(&Arc::clone(&server.configuration), Bare { backend });
    proxy.add_tcp(listen);
    server.add_service(proxy);
    server.run_forever()
}

fn usage() -> ExitCode {
    eprintln!("bare LISTEN BACKEND THREADS, as: bare 127.0.0.1:8080 127.0.0.1:9000 2");
    ExitCode::FAILURE
}
