//! Reads on what a backend still does when its answer is whole: an app may have work to do after its last `yield`, which the
//! end of its connection would break off. Nobody waits for it, and it is in no record.

use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;

use crate::proxy::process::drain::DrainStage;
use crate::proxy::process::state::Shared;

/// How long a backend is read on.
const TIME: Duration = Duration::from_secs(30);

/// What it may send meanwhile, in bytes.
const BYTES_MAX: usize = 16 << 20;

/// Reads `session` on in a task of its own. Where its body ends in order, the connection serves others.
pub(crate) fn read_on(shared: &Arc<Shared>, mut session: HttpSession, peer: Arc<HttpPeer>) {
    let place = Arc::clone(&shared.lingering).try_acquire_owned();
    let shared = Arc::clone(shared);
    drop(tokio::spawn(async move {
        let Ok(_place) = place else { return session.shutdown().await };
        let ended = tokio::select! {
            biased;
            () = shared.drain.reached(DrainStage::Cut) => false,
            ended = tokio::time::timeout(TIME, to_its_end(&mut session)) => ended.unwrap_or(false),
        };
        if ended {
            shared.connector.release(session, &peer).await;
        } else {
            session.shutdown().await;
        }
    }));
}

/// Whether the body ended in order.
async fn to_its_end(session: &mut HttpSession) -> bool {
    let mut bytes = 0;
    loop {
        match session.read_response_body().await {
            Ok(Some(chunk)) => bytes += chunk.len(),
            Ok(None) => return true,
            Err(_) => return false,
        }
        if bytes > BYTES_MAX {
            return false;
        }
    }
}
