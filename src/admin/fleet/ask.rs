//! Asks one other replica, within a time and a size.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::config::fleet::PeerAddress;
use crate::config::secret::Secret;
use crate::policy::peer_signature::{self, Asked, Question};
use crate::telemetry::json;

/// A replica answers within this, from the connection to the last byte, or is named as absent.
pub(in crate::admin) const DEADLINE: Duration = Duration::from_secs(1);

/// Longest answer that is read, in bytes; of a feed, longest event.
pub(in crate::admin) const ANSWER_MAX: usize = 256 << 10;

/// Names the replica that answers another one.
pub(in crate::admin) const REPLICA: &str = "x-streamgauge-replica";

/// Longest head of an answer, in bytes.
const HEAD_MAX: usize = 16 << 10;

/// What is repeated of a refusal, in characters.
const REFUSAL_MAX: usize = 300;

/// By what a replica asks others.
#[derive(Debug, Clone, Copy)]
pub(in crate::admin) struct Signer<'a> {
    pub(in crate::admin) fleet: &'a str,
    pub(in crate::admin) secret: &'a Secret,
}

/// What a replica answered.
#[derive(Debug)]
pub(in crate::admin) struct Reply {
    pub(in crate::admin) replica: String,
    pub(in crate::admin) body: Value,
}

/// Why a replica is absent from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::admin) enum Trouble {
    NoAddress,
    Unreachable(String),
    Silent,
    TooLong,
    Ended,
    /// With what it said.
    Refused(u16, String),
    /// Another than Redis says.
    Another(String),
    NoReplica,
    TooMany,
    /// Redis has not heard of it.
    Gone,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("it tells no address: give it `advertise` in [fleet]"),
            Self::Unreachable(why) => write!(f, "it cannot be reached: {why}"),
            Self::Silent => write!(f, "it did not answer within {} s", DEADLINE.as_secs()),
            Self::TooLong => write!(f, "its answer is longer than {} KiB", ANSWER_MAX >> 10),
            Self::Ended => f.write_str("its answer ended before its end"),
            Self::Refused(status, said) => write!(f, "it answered {status}: {said}"),
            Self::Another(replica) => write!(f, "replica {replica} answers at its address"),
            Self::NoReplica => f.write_str("what answers at its address is no replica of Streamgauge"),
            Self::TooMany => write!(f, "at most {} replicas are asked", crate::config::fleet::PEERS_MAX),
            Self::Gone => f.write_str("it was not heard of any more"),
        }
    }
}

/// An answer that goes on; its connection ends with it.
pub(in crate::admin) struct Opened {
    pub(in crate::admin) replica: String,
    pub(in crate::admin) response: Response<Incoming>,
    _connection: Connection,
}

/// What drives a connection, for as long as it is kept.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the replica at `address` answers to a GET of `path`.
pub(in crate::admin) async fn get(address: &PeerAddress, path: &str, signer: Signer<'_>) -> Result<Reply, Trouble> {
    let answer = async {
        let Opened { replica, response, _connection } = open_at(address, path, signer).await?;
        let body = whole(response).await?;
        let body = serde_json::from_slice(&body).map_err(|_| Trouble::NoReplica)?;
        Ok(Reply { replica, body })
    };
    tokio::time::timeout(DEADLINE, answer).await.map_err(|_| Trouble::Silent)?
}

/// An answer of which the head has come.
pub(in crate::admin) async fn open(address: &PeerAddress, path: &str, signer: Signer<'_>) -> Result<Opened, Trouble> {
    tokio::time::timeout(DEADLINE, open_at(address, path, signer)).await.map_err(|_| Trouble::Silent)?
}

async fn open_at(address: &PeerAddress, path: &str, signer: Signer<'_>) -> Result<Opened, Trouble> {
    let unreachable = |error: std::io::Error| Trouble::Unreachable(error.kind().to_string());
    let stream = TcpStream::connect(address.authority()).await.map_err(unreachable)?;
    let connected = stream.peer_addr().map_err(unreachable)?.to_string();
    let asked = Asked { by_name: address.authority(), by_address: &connected };
    let question = Question { fleet: signer.fleet, path };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let signature = peer_signature::header(signer.secret, question, asked, now);
    let signature = signature.ok_or_else(|| Trouble::Unreachable("nothing can be signed here".to_owned()))?;
    let request = Request::get(path).header("host", address.authority()).header("authorization", signature);
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| Trouble::NoAddress)?;
    let handshake = http1::Builder::new().max_buf_size(HEAD_MAX).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| Trouble::NoReplica)?;
    let driven = Connection(tokio::spawn(async move {
        // Whoever reads the answer sees how it ended.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|_| Trouble::NoReplica)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(Trouble::Refused(status, refusal(&whole(response).await?)));
    }
    let replica = response.headers().get(REPLICA).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let replica = replica.filter(|replica| is_name(replica)).ok_or(Trouble::NoReplica)?;
    Ok(Opened { replica, response, _connection: driven })
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Trouble> {
    match Limited::new(response.into_body(), ANSWER_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Trouble::TooLong),
        Err(_) => Err(Trouble::Ended),
    }
}

/// What a replica may be called.
fn is_name(replica: &str) -> bool {
    replica.len() == 16 && replica.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What an answer says besides its status; it may be anybody's.
fn refusal(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(body).ok();
    let said = said.as_ref().and_then(|said| said.get("error")?.as_str()).unwrap_or("nothing that can be read");
    said.chars().filter(|character| !json::steers_terminals(*character)).take(REFUSAL_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_a_second_and_a_quarter_of_a_mebibyte() {
        assert_eq!((DEADLINE, ANSWER_MAX), (Duration::from_secs(1), 262_144));
        assert_eq!(Trouble::Silent.to_string(), "it did not answer within 1 s");
        assert_eq!(Trouble::TooLong.to_string(), "its answer is longer than 256 KiB");
    }

    #[test]
    fn what_is_repeated_of_a_refusal_is_short_and_steers_nothing() {
        assert_eq!(refusal(b"{\"error\":\"no\\u001b[2Jway\"}"), "no[2Jway");
        assert_eq!(refusal(b"<html>"), "nothing that can be read");
        let long = format!("{{\"error\":\"{}\"}}", "x".repeat(9_000));
        assert_eq!(refusal(long.as_bytes()).len(), REFUSAL_MAX);
        assert!(is_name("0123456789abcdef") && !is_name("0123456789abcde") && !is_name("0123456789abcde\u{e9}"));
    }
}
