//! A WebSocket server that talks back.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

/// Says `greeting` first, if there is one; echoes texts and bytes, and closes with 4321 when told "bye".
pub async fn echo(greeting: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(talk(stream, greeting));
        }
    });
    address
}

async fn talk(stream: TcpStream, greeting: Option<&'static str>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    if let Some(greeting) = greeting {
        socket.send(Message::text(greeting)).await.unwrap();
    }
    while let Some(Ok(message)) = socket.next().await {
        if message == Message::text("bye") {
            let frame = CloseFrame { code: CloseCode::from(4321), reason: "told so".into() };
            let _ = socket.close(Some(frame)).await;
        } else if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}
