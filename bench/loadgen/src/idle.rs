//! Memory of the proxy per connection that waits: each made one request, and makes no more.

use std::str::FromStr;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep, timeout};

use crate::client::{PATIENCE, Target, exchange};
use crate::wire::Wire;
use crate::{Error, args::Args, payload, proc};

/// Connections that come and go before the first look: code and tables that any of them needs are in memory then.
const WARMUP: usize = 50;

/// How a connection is spoken on.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Http1,
    /// By prior knowledge.
    Http2,
    WebSocket,
}

/// An open connection.
enum Open {
    Http1(Wire),
    Http2(SendRequest<Bytes>),
    WebSocket(Wire),
}

/// Opens `--connections`, waits a moment, and looks. The result has memory before and after, in KiB. Each is used once more at the
/// end: one that was closed meanwhile took no memory.
///
/// # Errors
/// A connection that does not open, or does not last.
pub async fn run(args: &Args) -> Result<String, Error> {
    let target = Target::from_args(args)?;
    let tree = proc::Tree::of(args.required("pid")?)?;
    let kind: Kind = args.required("kind")?;
    let connections: usize = args.or("connections", 2_000)?;
    let settle = Duration::try_from_secs_f64(args.or("settle", 1.0)?)?;
    args.finish()?;

    for _ in 0..WARMUP {
        open(&target, kind).await?;
    }
    sleep(settle).await;
    let rest = tree.memory()?;
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        held.push(open(&target, kind).await?);
    }
    sleep(settle).await;
    let kib = tree.memory()?;
    for each in &mut held {
        ask(&target, each).await?;
    }
    Ok(format!("{{\"connections\":{connections},\"rest_kib\":{rest},\"kib\":{kib}}}"))
}

/// Opens a connection, and makes a request on it.
async fn open(target: &Target, kind: Kind) -> Result<Open, Error> {
    let mut open = match kind {
        Kind::Http1 => Open::Http1(target.connect().await?),
        Kind::Http2 => {
            let stream = TcpStream::connect(&target.address).await?;
            stream.set_nodelay(true)?;
            let (requests, connection) = timeout(PATIENCE, h2::client::handshake(stream)).await??;
            // Its end is told by the requests, which fail then.
            tokio::spawn(connection);
            Open::Http2(requests)
        }
        Kind::WebSocket => {
            let mut wire = target.connect().await?;
            wire.write(&payload::ask_websocket(&target.address, &target.path)).await?;
            let head = timeout(PATIENCE, wire.head()).await??.ok_or("closed instead of a WebSocket")?;
            if head.first_line.split(' ').nth(1) != Some("101") {
                return Err(format!("answered {:?}", head.first_line).into());
            }
            Open::WebSocket(wire)
        }
    };
    ask(target, &mut open).await?;
    Ok(open)
}

/// A request, or a message, and its answer.
async fn ask(target: &Target, open: &mut Open) -> Result<(), Error> {
    match open {
        Open::Http1(wire) => {
            if exchange(wire, &target.json_request(None)).await? {
                return Err("the connection is closed after one answer".into());
            }
        }
        Open::Http2(requests) => timeout(PATIENCE, ask_http2(target, requests)).await??,
        Open::WebSocket(wire) => {
            wire.write(payload::MESSAGE_OF_CLIENT).await?;
            timeout(PATIENCE, wire.message()).await??;
        }
    }
    Ok(())
}

async fn ask_http2(target: &Target, requests: &mut SendRequest<Bytes>) -> Result<(), Error> {
    let request = http::Request::post(format!("http://{}{}", target.address, target.path))
        .header("content-type", "application/json")
        .header("content-length", payload::ASK_JSON.len())
        .body(())?;
    std::future::poll_fn(|context| requests.poll_ready(context)).await?;
    let (answer, mut body) = requests.send_request(request, false)?;
    body.send_data(Bytes::from_static(payload::ASK_JSON.as_bytes()), true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut last = None;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        last = piece.last().copied().or(last);
    }
    if head.status != http::StatusCode::OK || last != Some(b'}') {
        return Err(format!("answered {} over HTTP/2", head.status).into());
    }
    Ok(())
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "http1" => Ok(Self::Http1),
            "http2" => Ok(Self::Http2),
            "websocket" => Ok(Self::WebSocket),
            _ => Err("http1, http2 or websocket".into()),
        }
    }
}
