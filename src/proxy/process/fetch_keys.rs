//! Keeps the keys of tokens fresh, in the background.

use super::state::Shared;

impl Shared {
    /// Fetches the keys of tokens where they are due: for the start, before the first request.
    pub async fn fetch_keys(&self) {
        let remote = self.generation.load().remote_keys.clone();
        if let Some(remote) = remote {
            remote.fetch(&self.connector, self.telemetry.metrics()).await;
        }
    }

    /// Keeps the keys of tokens fresh; never ends.
    pub async fn keep_keys_fresh(&self) {
        loop {
            // Each time anew: a reload may have brought another address.
            let remote = self.generation.load().remote_keys.clone();
            match &remote {
                Some(remote) if remote.due_in().is_zero() => {
                    remote.fetch(&self.connector, self.telemetry.metrics()).await
                }
                Some(remote) => {
                    tokio::select! {
                        () = self.keys_wanted.notified() => {}
                        () = tokio::time::sleep(remote.due_in()) => {}
                    }
                }
                None => self.keys_wanted.notified().await,
            }
        }
    }
}
