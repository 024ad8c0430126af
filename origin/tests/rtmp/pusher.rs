//! An encoder over a real socket, made of `rml_rtmp`'s client.

use std::net::SocketAddr;

use bytes::Bytes;
use rml_rtmp::{
    handshake::{Handshake, HandshakeProcessResult, PeerType},
    sessions::{
        ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult,
        PublishRequestType,
    },
    time::RtmpTimestamp,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) struct Pusher {
    stream: TcpStream,
    session: ClientSession,
}

impl Pusher {
    /// Connects, shakes hands and connects to `app`.
    pub(crate) async fn connect(address: SocketAddr, app: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut shake = Handshake::new(PeerType::Client);
        stream.write_all(&shake.generate_outbound_p0_and_p1().unwrap()).await.unwrap();
        let mut buffer = [0; 4096];
        loop {
            let bytes = stream.read(&mut buffer).await.unwrap();
            assert!(bytes > 0, "the server left during the handshake");
            match shake.process_bytes(&buffer[..bytes]).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    stream.write_all(&response_bytes).await.unwrap();
                }
                HandshakeProcessResult::Completed { response_bytes, .. } => {
                    stream.write_all(&response_bytes).await.unwrap();
                    break;
                }
            }
        }
        let (session, _) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let mut pusher = Self { stream, session };
        let request = pusher.session.request_connection(app.to_owned()).unwrap();
        pusher.send(request).await;
        pusher.until(|event| *event == ClientSessionEvent::ConnectionRequestAccepted).await;
        pusher
    }

    /// Asks to publish, without waiting for the answer.
    pub(crate) async fn request(&mut self, key: &str) {
        let kind = PublishRequestType::Live;
        let request = self.session.request_publishing(key.to_owned(), kind).unwrap();
        self.send(request).await;
        // The answer to createStream; the client then sends publish.
        self.read().await;
    }

    /// Publishes and waits until it may.
    pub(crate) async fn publish(address: SocketAddr, app: &str, key: &str) -> Self {
        let mut pusher = Self::connect(address, app).await;
        pusher.request(key).await;
        pusher.until(|event| *event == ClientSessionEvent::PublishRequestAccepted).await;
        pusher
    }

    pub(crate) async fn video(&mut self, timestamp_ms: u32, payload: Bytes) {
        assert!(self.try_video(timestamp_ms, payload).await, "the connection is gone");
    }

    /// Sends a video message; `false` if the connection is gone.
    pub(crate) async fn try_video(&mut self, timestamp_ms: u32, payload: Bytes) -> bool {
        let time = RtmpTimestamp::new(timestamp_ms);
        match self.session.publish_video_data(payload, time, false).unwrap() {
            ClientSessionResult::OutboundResponse(packet) => {
                self.stream.write_all(&packet.bytes).await.is_ok()
            }
            other => panic!("expected bytes to send, got {other:?}"),
        }
    }

    /// Ends the publish, not the connection.
    pub(crate) async fn unpublish(&mut self) {
        for result in self.session.stop_publishing().unwrap() {
            self.send(result).await;
        }
    }

    /// Waits for an `onStatus` that is no success, and then for the end of the connection.
    pub(crate) async fn refused(mut self) -> String {
        let code = loop {
            let events = self.read().await.expect("a status before the end");
            let code = events.into_iter().find_map(|event| match event {
                ClientSessionEvent::UnhandleableOnStatusCode { code } => Some(code),
                _ => None,
            });
            if let Some(code) = code {
                break code;
            }
        };
        self.closed().await;
        code
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closed(&mut self) {
        while self.read().await.is_some() {}
    }

    async fn until(&mut self, is: impl Fn(&ClientSessionEvent) -> bool) {
        while !self.read().await.expect("an open connection").iter().any(&is) {}
    }

    /// Reads once and answers what is to be answered; `None` at the end of the connection.
    async fn read(&mut self) -> Option<Vec<ClientSessionEvent>> {
        let mut buffer = [0; 4096];
        let bytes = self.stream.read(&mut buffer).await.unwrap_or(0);
        if bytes == 0 {
            return None;
        }
        let mut events = Vec::new();
        for result in self.session.handle_input(&buffer[..bytes]).unwrap() {
            match result {
                ClientSessionResult::RaisedEvent(event) => events.push(event),
                other => self.send(other).await,
            }
        }
        Some(events)
    }

    async fn send(&mut self, result: ClientSessionResult) {
        if let ClientSessionResult::OutboundResponse(packet) = result {
            self.stream.write_all(&packet.bytes).await.unwrap();
        }
    }
}
