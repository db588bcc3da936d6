//! A connection on which a request's head waits for its body: pingora writes and flushes the head by itself, and a body that is in
//! hand would go by a second system call, in a packet of its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection to an upstream that speaks HTTP/1.
#[derive(Debug)]
pub(crate) struct Corked {
    stream: Stream,
    /// What is written waits.
    cork: AtomicBool,
    /// What waits: at most a request's head. It goes with the next that is written or flushed without the cork.
    waiting: Vec<u8>,
}

impl Corked {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, cork: AtomicBool::new(false), waiting: Vec::new() }
    }

    /// Has what is written to `session` wait, or not. Nothing waits on an HTTP/2 session.
    pub(crate) fn cork(session: &HttpSession, cork: bool) {
        let stream = session.as_http1().map(|session| &**session.stream());
        if let Some(corked) = stream.and_then(|stream| stream.as_any().downcast_ref::<Self>()) {
            corked.cork.store(cork, Ordering::Relaxed);
        }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut Stream> {
        Pin::new(&mut self.get_mut().stream)
    }

    /// Writes all that waits, with as much of `bytes` as goes at once; so many of them.
    fn poll_write_waiting(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.waiting.is_empty() {
            let pieces = [IoSlice::new(&self.waiting), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &pieces))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            match written.checked_sub(self.waiting.len()) {
                None => drop(self.waiting.drain(..written)),
                Some(more) => {
                    self.waiting = Vec::new();
                    return Poll::Ready(Ok(more));
                }
            }
        }
        Poll::Ready(Ok(0))
    }
}

impl AsyncRead for Corked {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, into)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if *self.cork.get_mut() {
            self.waiting.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        match ready!(self.poll_write_waiting(context, bytes))? {
            0 => self.stream().poll_write(context, bytes),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if *self.cork.get_mut() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_write_waiting(context, &[]))?;
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for Corked {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl UniqueID for Corked {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Corked {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Corked {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

impl GetProxyDigest for Corked {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Corked {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Corked {
    async fn try_peek(&mut self, into: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(into).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use pingora::http::RequestHeader;
    use pingora::protocols::http::v1::client::HttpSession as Http1Session;
    use pingora::protocols::l4::stream::Stream as Socket;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn head_and_body_come_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let stream = Box::new(Corked::new(Box::new(Socket::from(ours))));
        let mut session = HttpSession::H1(Http1Session::new(stream));
        let mut head = RequestHeader::build("POST", b"/", None).unwrap();
        head.insert_header("content-length", "4").unwrap();

        Corked::cork(&session, true);
        session.write_request_header(Box::new(head)).await.unwrap();
        let mut came = [0; 1024];
        assert!(theirs.try_read(&mut came).is_err(), "it waits for the body");

        Corked::cork(&session, false);
        session.write_request_body("body".into(), true).await.unwrap();
        let length = theirs.read(&mut came).await.unwrap();
        assert_eq!(came.get(..length).unwrap(), b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody");
    }

    #[tokio::test]
    async fn a_narrow_connection_takes_all_of_it() {
        for narrow in [1, 3, 4, 5, 64] {
            let (ours, mut theirs) = tokio::io::duplex(narrow);
            let mut corked = Corked::new(Box::new(ours));
            corked.cork = AtomicBool::new(true);
            corked.write_all(b"head").await.unwrap();
            corked.flush().await.unwrap();
            corked.cork = AtomicBool::new(false);
            let write = async {
                corked.write_all(b"").await.unwrap();
                corked.write_all(b"a long body").await.unwrap();
                corked.flush().await.unwrap();
                drop(corked);
            };
            let mut came = Vec::new();
            let ((), read) = tokio::join!(write, theirs.read_to_end(&mut came));
            read.unwrap();
            assert_eq!(came, b"heada long body", "{narrow} at once");
        }
    }

    #[tokio::test]
    async fn a_head_alone_goes_with_the_flush() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut corked = Corked::new(Box::new(ours));
        corked.cork = AtomicBool::new(true);
        corked.write_all(b"head").await.unwrap();
        corked.cork = AtomicBool::new(false);
        corked.flush().await.unwrap();
        let mut came = [0; 4];
        theirs.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"head");
    }
}
