//! An OTLP/HTTP receiver that throws away what it takes, but counts it: so that a run can prove that traces were sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::net::{TcpListener, TcpStream};

use crate::wire::Wire;
use crate::{Error, args::Args};

#[derive(Debug, Default)]
struct Taken {
    posts: AtomicU64,
    bytes: AtomicU64,
}

/// Serves until it is killed. A GET answers `{"posts":…,"bytes":…}`.
///
/// # Errors
/// The address cannot be bound.
pub async fn run(args: &Args) -> Result<String, Error> {
    let listener = TcpListener::bind(args.or("listen", "127.0.0.1:0".to_owned())?).await?;
    args.finish()?;
    println!("{}", listener.local_addr()?);
    let taken = Arc::new(Taken::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            // A client that goes is no news.
            let _ = serve(stream, &taken).await;
        });
    }
}

async fn serve(stream: TcpStream, taken: &Taken) -> Result<(), Error> {
    let mut wire = Wire::new(stream)?;
    while let Some(mut head) = wire.head().await? {
        let mut piece = Vec::new();
        let mut bytes = 0;
        while wire.piece(&mut head.body, &mut piece).await? {
            bytes += piece.len() as u64;
            piece.clear();
        }
        if head.first_line.starts_with("POST ") {
            taken.posts.fetch_add(1, Relaxed);
            taken.bytes.fetch_add(bytes, Relaxed);
            // An empty protobuf message: nothing was rejected.
            wire.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").await?;
        } else {
            let body = format!("{{\"posts\":{},\"bytes\":{}}}", taken.posts.load(Relaxed), taken.bytes.load(Relaxed));
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
            wire.write(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        }
    }
    Ok(())
}
