//! The connection to the Redis or Valkey that several proxies share.

use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisError, RedisResult};

use crate::config::limits::LimitStore;

/// What nobody waits for may take so long.
pub(in crate::proxy) const UNHURRIED: Duration = Duration::from_secs(1);

/// One connection, which is made when it is first used and mends itself.
pub(in crate::proxy) struct RedisLine {
    client: Client,
    connection: Mutex<Option<ConnectionManager>>,
}

impl RedisLine {
    /// `None`: the configuration names no Redis.
    ///
    /// # Errors
    /// What is wrong with the address; it is not repeated.
    pub(in crate::proxy) fn new(store: &LimitStore) -> Result<Option<Self>, String> {
        let Some(url) = &store.redis else { return Ok(None) };
        // Fails where one is installed already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |error: RedisError| format!("`limits.redis`: {}", error.category());
        let mut info = url.expose().into_connection_info().map_err(wrong)?;
        if let Some(password) = &store.password {
            let settings = info.redis_settings().clone().set_password(password.expose());
            info = info.set_redis_settings(settings);
        }
        Ok(Some(Self { client: Client::open(info).map_err(wrong)?, connection: Mutex::default() }))
    }

    /// The connection of this process: it mends itself in the background.
    ///
    /// # Errors
    /// What the client says of its settings.
    pub(in crate::proxy) fn connect(&self) -> RedisResult<ConnectionManager> {
        let mut connection = self.connection.lock();
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(UNHURRIED))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200));
        let new = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(connection.insert(new).clone())
    }

    /// Host and port; `None` on a unix socket.
    pub(in crate::proxy) fn place(&self) -> Option<(String, u16)> {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some((host.clone(), *port)),
            _ => None,
        }
    }

    /// Another connection, for the last words: the one that requests used ends with their runtime.
    ///
    /// # Errors
    /// It cannot be made.
    pub(in crate::proxy) async fn another(&self) -> RedisResult<MultiplexedConnection> {
        self.client.get_multiplexed_async_connection().await
    }
}
