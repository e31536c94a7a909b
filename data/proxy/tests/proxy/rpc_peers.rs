//! Bolt and Dubbo peers: a caller, and an upstream that answers as told.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_codec::rpc::{Failure, Limits};
use weir_codec::{bolt, dubbo, hessian};

use crate::peers::{Peer, Running, Setup, Upstream, soon};

/// Both, for tests that hold for either.
pub const BOTH: [Wire; 2] = [Wire::Bolt, Wire::Dubbo];

/// Which protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Bolt,
    Dubbo,
}

/// A request to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub id: u32,
    pub service: &'a str,
    pub method: &'a str,
    pub labels: &'a [(&'a str, &'a str)],
    pub timeout: Option<Duration>,
    pub one_way: bool,
    pub text: &'a str,
}

impl<'a> Ask<'a> {
    pub fn new(id: u32, text: &'a str) -> Self {
        Ask { id, service: "a.Echo", method: "say", labels: &[], timeout: None, one_way: false, text }
    }
}

impl Wire {
    pub fn name(self) -> &'static str {
        match self {
            Wire::Bolt => "bolt",
            Wire::Dubbo => "dubbo",
        }
    }

    /// A proxy whose listener and cluster speak this.
    pub fn setup(self) -> Setup {
        Setup::new().listener(&self.protocol()).cluster(&self.protocol())
    }

    pub fn protocol(self) -> String {
        format!("protocol: {self:?}")
    }

    pub fn request(self, ask: &Ask<'_>) -> Vec<u8> {
        match self {
            Wire::Bolt => bolt::Frame::request(
                bolt::Version::V1,
                &bolt::Call {
                    id: ask.id,
                    service: ask.service,
                    method: ask.method,
                    headers: ask.labels,
                    timeout: ask.timeout.unwrap_or_default(),
                    one_way: ask.one_way,
                    content: ask.text.as_bytes(),
                },
            )
            .unwrap()
            .as_bytes()
            .to_vec(),
            Wire::Dubbo => dubbo_request(ask),
        }
    }

    /// The answer to a request, with a text.
    pub fn answer(self, got: &Got, text: &str) -> Vec<u8> {
        match &got.frame {
            Frame::Bolt(frame) => bolt::Frame::response(frame.head(), b"x", text.as_bytes()).as_bytes().to_vec(),
            Frame::Dubbo(frame) => dubbo::Frame::response(frame.head(), &hessian_text(text)).as_bytes().to_vec(),
        }
    }

    /// "I have nobody free for this request."
    pub fn busy(self, got: &Got) -> Vec<u8> {
        match &got.frame {
            Frame::Bolt(frame) => bolt::Frame::failure(frame.head(), Failure::Overloaded, "busy").as_bytes().to_vec(),
            Frame::Dubbo(frame) => dubbo::Frame::failure(frame.head(), Failure::Overloaded, "busy").as_bytes().to_vec(),
        }
    }

    pub fn heartbeat(self, id: u32) -> Vec<u8> {
        match self {
            Wire::Bolt => bolt::Frame::heartbeat(bolt::Version::V1, id).as_bytes().to_vec(),
            Wire::Dubbo => dubbo::Frame::heartbeat(id.into()).as_bytes().to_vec(),
        }
    }

    pub fn goodbye(self) -> Vec<u8> {
        match self {
            Wire::Bolt => bolt::Frame::goaway(bolt::Version::V1, 0).as_bytes().to_vec(),
            Wire::Dubbo => dubbo::Frame::read_only(0).as_bytes().to_vec(),
        }
    }

    fn decode(self, buffer: &mut BytesMut) -> Option<Frame> {
        match self {
            Wire::Bolt => bolt::Frame::decode(buffer, &Limits::default()).unwrap().map(Frame::Bolt),
            Wire::Dubbo => dubbo::Frame::decode(buffer, &Limits::default()).unwrap().map(Frame::Dubbo),
        }
    }
}

fn hessian_text(text: &str) -> Vec<u8> {
    let mut value = Vec::new();
    hessian::put_text(text, &mut value);
    value
}

fn dubbo_request(ask: &Ask<'_>) -> Vec<u8> {
    let millis = ask.timeout.map(|timeout| timeout.as_millis().to_string());
    let mut attachments = ask.labels.to_vec();
    attachments.extend(millis.as_deref().map(|millis| ("timeout", millis)));
    let call = dubbo::Call {
        id: ask.id.into(),
        path: ask.service,
        version: "",
        method: ask.method,
        descriptor: "Ljava/lang/String;",
        arguments: &hessian_text(ask.text),
        attachments: &attachments,
        one_way: ask.one_way,
    };
    dubbo::Frame::request(&call).as_bytes().to_vec()
}

#[derive(Debug, Clone)]
pub enum Frame {
    Bolt(bolt::Frame),
    Dubbo(dubbo::Frame),
}

/// A frame as it was read.
#[derive(Debug, Clone)]
pub struct Got {
    pub frame: Frame,
}

impl Got {
    pub fn id(&self) -> u64 {
        match &self.frame {
            Frame::Bolt(frame) => frame.id().into(),
            Frame::Dubbo(frame) => frame.id(),
        }
    }

    /// True for a success; only of answers.
    pub fn is_ok(&self) -> bool {
        match &self.frame {
            Frame::Bolt(frame) => frame.status() == 0,
            Frame::Dubbo(frame) => frame.status() == dubbo::OK,
        }
    }

    /// Bolt's and Dubbo's status.
    pub fn status(&self) -> u16 {
        match &self.frame {
            Frame::Bolt(frame) => frame.status(),
            Frame::Dubbo(frame) => frame.status().into(),
        }
    }

    pub fn kind(&self) -> String {
        match &self.frame {
            Frame::Bolt(frame) => format!("{:?}", frame.kind()),
            Frame::Dubbo(frame) => format!("{:?}", frame.kind()),
        }
    }

    pub fn is_request(&self) -> bool {
        matches!(self.kind().as_str(), "Request" | "OneWay")
    }

    pub fn is_goodbye(&self) -> bool {
        matches!(self.kind().as_str(), "Goaway" | "ReadOnly")
    }

    /// Whether the text that was sent is in it.
    pub fn says(&self, text: &str) -> bool {
        let bytes = self.bytes();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.frame {
            Frame::Bolt(frame) => frame.as_bytes(),
            Frame::Dubbo(frame) => frame.as_bytes(),
        }
    }

    pub fn label(&self, key: &str) -> Option<String> {
        match &self.frame {
            Frame::Bolt(frame) => frame.headers().unwrap().text(key).map(str::to_owned),
            Frame::Dubbo(frame) => frame.attachments().unwrap().get(key).map(str::to_owned),
        }
    }
}

/// One side of a connection.
pub struct RpcPeer {
    pub stream: TcpStream,
    pub wire: Wire,
    ahead: BytesMut,
}

impl RpcPeer {
    pub fn new(wire: Wire, peer: Peer) -> Self {
        RpcPeer { stream: peer.stream, wire, ahead: BytesMut::new() }
    }

    pub async fn connect(wire: Wire, address: SocketAddr) -> Self {
        RpcPeer::new(wire, Peer::connect(address).await)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    pub async fn ask(&mut self, ask: Ask<'_>) -> Got {
        self.send(self.wire.request(&ask)).await;
        self.next().await.expect("closed without an answer")
    }

    /// The next frame; `None` if the connection ends.
    pub async fn next(&mut self) -> Option<Got> {
        loop {
            if let Some(frame) = self.wire.decode(&mut self.ahead) {
                return Some(Got { frame });
            }
            if soon(self.stream.read_buf(&mut self.ahead)).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next request; heartbeats are answered.
    pub async fn request(&mut self) -> Option<Got> {
        loop {
            let got = self.next().await?;
            if got.is_request() {
                return Some(got);
            }
            self.acknowledge(&got).await;
        }
    }

    /// Answers a heartbeat; anything else is left alone.
    pub async fn acknowledge(&mut self, got: &Got) {
        let ack = match &got.frame {
            Frame::Bolt(frame) if got.kind() == "Heartbeat" => {
                bolt::Frame::heartbeat_ack(frame.head()).as_bytes().to_vec()
            }
            Frame::Dubbo(frame) if got.kind() == "Heartbeat" => dubbo::Frame::heartbeat_ack(frame).as_bytes().to_vec(),
            _ => return,
        };
        self.send(ack).await;
    }
}

/// An upstream of which each connection is served by a function.
pub async fn upstream<F, Fut>(wire: Wire, serve: F) -> Upstream
where
    F: Fn(RpcPeer, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Upstream::scripted(move |peer, number| serve(RpcPeer::new(wire, peer), number)).await
}

/// An upstream that says the same to everybody.
pub async fn saying(wire: Wire, text: &'static str) -> Upstream {
    upstream(wire, move |mut peer, _| async move {
        while let Some(got) = peer.request().await {
            peer.send(wire.answer(&got, text)).await;
        }
    })
    .await
}

/// A proxy in front of endpoints, and a caller of it.
pub async fn between(wire: Wire, endpoints: &[SocketAddr]) -> (Running, RpcPeer) {
    let running = wire.setup().start(endpoints).await;
    let caller = RpcPeer::connect(wire, running.address).await;
    (running, caller)
}
