//! A fake LLM backend: OpenAI chat, Anthropic, Ollama and plain event streams, with delays, failures and rates set by each
//! request. For newcomers, demos and tests. It knows no other room.
//!
//! Every knob is a query parameter or an `x-demo-…` header; [`script::Script`] lists them.

mod body;
mod prefix_cache;
mod script;
mod service;
mod shapes;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use stats::Stats;

/// Serves until `shutdown` resolves: HTTP/1.1, and HTTP/2 with prior knowledge. `knobs` holds for requests that say nothing
/// else, written as a query.
pub async fn serve(listener: TcpListener, knobs: &str, shutdown: impl Future<Output = ()>) {
    let knobs: Arc<str> = knobs.into();
    let stats = Arc::new(Stats::default());
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => return,
        };
        // A connection that was reset before we took it is nothing to stop for.
        let Ok((stream, _)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let (stats, knobs) = (Arc::clone(&stats), Arc::clone(&knobs));
        tokio::spawn(async move {
            let answer = service_fn(move |request: hyper::Request<Incoming>| {
                service::answer(Arc::clone(&stats), Arc::clone(&knobs), request)
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            // Clients that leave, and answers that are cut on purpose, end here.
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Runs the backend for the command line, and says what to try. `knobs` as for [`serve`].
///
/// # Errors
/// The address cannot be listened on, or one of the knobs is none.
pub fn run(listen: SocketAddr, knobs: &str) -> std::io::Result<()> {
    script::check(knobs).map_err(std::io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another program uses this port; choose another with --listen",
                _ => "choose another address with --listen",
            };
            std::io::Error::new(error.kind(), format!("cannot listen on {listen}: {hint} ({error})"))
        })?;
        greet(listener.local_addr()?);
        serve(listener, knobs, async {
            // Without the signal's handler the default action ends the process: as good.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await;
        Ok(())
    })
}

fn greet(at: SocketAddr) {
    use std::io::Write;
    let text = format!(
        "A fake LLM backend listens at http://{at}. In front of it:\n\n\
         \x20   streamgauge run --upstream http://{at}\n\n\
         and then, through Streamgauge:\n\n\
         \x20   curl -N 'http://127.0.0.1:8080/v1/chat/completions?ttft_ms=300&gap_ms=50' \\\n\
         \x20        -d '{{\"model\":\"demo\",\"stream\":true,\"messages\":[]}}' -H 'content-type: application/json'\n\
         \x20   curl -N 'http://127.0.0.1:8080/api/v1/stream?tokens=20&cut_at=10'     # dies after ten events\n\n\
         Also: /v1/messages, /api/chat, /api/generate, /api/v1/chat, /echo, /large?bytes=N, /health, /__stats.\n\
         Knobs: {}.\nCtrl-C stops it.\n",
        script::KNOBS
    );
    // Nobody may be reading.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests;
