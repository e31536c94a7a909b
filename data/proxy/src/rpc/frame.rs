//! The two protocols, as far as serving has to tell them apart.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use weir_codec::rpc::{Edit, Failure, Limits};
use weir_codec::{bolt, dubbo};

use crate::snapshot::{Family, Fields};

/// A heartbeat with this id is how Weir begins a Bolt connection. Every server answers it like any other; Weir learns by
/// it that the caller understands GOAWAY, which closes the connection of callers that don't.
const HELLO: u32 = u32::from_be_bytes(*b"weir");
/// Attachment in which Dubbo's clients say how long they wait (milliseconds).
const TIMEOUT: &str = "timeout";

/// Which protocol is family on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// SOFABolt 1 and 2.
    Bolt,
    /// Dubbo 2.
    Dubbo,
}

impl Protocol {
    pub(super) fn family(self) -> Family {
        match self {
            Protocol::Bolt => Family::Bolt,
            Protocol::Dubbo => Family::Dubbo,
        }
    }

    /// Its name in labels and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Protocol::Bolt => "bolt",
            Protocol::Dubbo => "dubbo",
        }
    }

    /// A connection on which nothing came for this long is asked whether it still lives; as the Java clients have it.
    pub(super) fn heartbeat_interval(self) -> Duration {
        match self {
            Protocol::Bolt => Duration::from_secs(15),
            Protocol::Dubbo => Duration::from_secs(60),
        }
    }

    /// Takes a whole frame from the start of `buffer`.
    ///
    /// # Errors
    /// If there can be none; the connection is of no use then.
    pub(super) fn decode(self, buffer: &mut BytesMut, max_bytes: usize) -> Result<Option<Frame>, Reject> {
        let limits = Limits { max_body_bytes: max_bytes };
        match self {
            Protocol::Bolt => match bolt::Frame::decode(buffer, &limits) {
                Ok(frame) => Ok(frame.map(Frame::Bolt)),
                Err(bolt::Reject::TooLong { .. }) => Err(Reject::TooLong(Head::of_bolt(buffer))),
                Err(reject) => Err(Reject::Malformed(reject.to_string())),
            },
            Protocol::Dubbo => match dubbo::Frame::decode(buffer, &limits) {
                Ok(frame) => Ok(frame.map(Frame::Dubbo)),
                Err(dubbo::Reject::TooLong { .. }) => Err(Reject::TooLong(Head::of_dubbo(buffer))),
                Err(reject) => Err(Reject::Malformed(reject.to_string())),
            },
        }
    }
}

/// Why bytes are no frame.
#[derive(Debug)]
pub(super) enum Reject {
    /// Longer than allowed; the request to be answered, if it is one.
    TooLong(Option<Head>),
    /// No frame at all.
    Malformed(String),
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request that is answered.
    Request,
    /// A request that is not.
    OneWay,
    /// The answer to a request.
    Response,
    /// "Are you there?"
    Heartbeat,
    /// "I am."
    HeartbeatAck,
    /// "Send me nothing new."
    GoingAway,
    /// "Send again."
    Staying,
    /// Of no concern to a proxy.
    Other,
}

/// A whole frame.
#[derive(Debug)]
pub(super) enum Frame {
    Bolt(bolt::Frame),
    Dubbo(dubbo::Frame),
}

/// What an answer needs to know of its request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Head {
    Bolt(bolt::Head),
    Dubbo(dubbo::Head),
}

impl Head {
    fn of_bolt(buffer: &[u8]) -> Option<Head> {
        bolt::Head::parse(buffer).ok().flatten().filter(|head| head.kind == bolt::Kind::Request).map(Head::Bolt)
    }

    fn of_dubbo(buffer: &[u8]) -> Option<Head> {
        dubbo::Head::parse(buffer).ok().flatten().filter(|head| head.wants_answer() && !head.is_event).map(Head::Dubbo)
    }

    /// The answer to this request when no server gave one.
    pub(super) fn failure(&self, failure: Failure, message: &str) -> Frame {
        match self {
            Head::Bolt(head) => Frame::Bolt(bolt::Frame::failure(head, failure, message)),
            Head::Dubbo(head) => Frame::Dubbo(dubbo::Frame::failure(head, failure, message)),
        }
    }

    /// The status with which `failure` is told.
    pub(super) fn status_of(&self, failure: Failure) -> u16 {
        match self {
            Head::Bolt(_) => failure.bolt_status(),
            Head::Dubbo(_) => u16::from(failure.dubbo_status()),
        }
    }

    /// "Are you there?", in the version of this request.
    pub(super) fn heartbeat(&self, id: u64) -> Frame {
        match self {
            Head::Bolt(head) => Frame::Bolt(bolt::Frame::heartbeat(head.version, id as u32)),
            Head::Dubbo(_) => Frame::Dubbo(dubbo::Frame::heartbeat(id)),
        }
    }

    /// What Weir begins a connection with, if anything.
    pub(super) fn hello(&self) -> Option<Frame> {
        match self {
            Head::Bolt(head) => Some(Frame::Bolt(bolt::Frame::heartbeat(head.version, HELLO))),
            Head::Dubbo(_) => None,
        }
    }

    /// "Send me nothing new."
    pub(super) fn going_away(&self, id: u64) -> Frame {
        match self {
            Head::Bolt(head) => Frame::Bolt(bolt::Frame::goaway(head.version, id as u32)),
            Head::Dubbo(_) => Frame::Dubbo(dubbo::Frame::read_only(id)),
        }
    }

    fn id(&self) -> u64 {
        match self {
            Head::Bolt(head) => u64::from(head.id),
            Head::Dubbo(head) => head.id,
        }
    }
}

impl Frame {
    pub(super) fn head(&self) -> Head {
        match self {
            Frame::Bolt(frame) => Head::Bolt(*frame.head()),
            Frame::Dubbo(frame) => Head::Dubbo(*frame.head()),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Frame::Bolt(frame) => match frame.kind() {
                bolt::Kind::Request => Kind::Request,
                bolt::Kind::OneWay => Kind::OneWay,
                bolt::Kind::Response => Kind::Response,
                bolt::Kind::Heartbeat => Kind::Heartbeat,
                bolt::Kind::HeartbeatAck => Kind::HeartbeatAck,
                bolt::Kind::Goaway => Kind::GoingAway,
            },
            Frame::Dubbo(frame) => match frame.kind() {
                dubbo::Kind::Request => Kind::Request,
                dubbo::Kind::OneWay => Kind::OneWay,
                dubbo::Kind::Response => Kind::Response,
                dubbo::Kind::Heartbeat if frame.head().wants_answer() => Kind::Heartbeat,
                dubbo::Kind::HeartbeatAck => Kind::HeartbeatAck,
                dubbo::Kind::ReadOnly => Kind::GoingAway,
                dubbo::Kind::Writable => Kind::Staying,
                dubbo::Kind::Heartbeat | dubbo::Kind::OtherEvent => Kind::Other,
            },
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.head().id()
    }

    /// Gives a response the id of the request it answers.
    pub(super) fn set_id_of(&mut self, request: &Head) {
        self.set_id(request.id());
    }

    /// Bolt's ids have 32 bits; those of a connection's requests are counted within them.
    pub(super) fn set_id(&mut self, id: u64) {
        match self {
            Frame::Bolt(frame) => frame.set_id(id as u32),
            Frame::Dubbo(frame) => frame.set_id(id),
        }
    }

    pub(super) fn heartbeat_ack(&self) -> Frame {
        match self {
            Frame::Bolt(frame) => Frame::Bolt(bolt::Frame::heartbeat_ack(frame.head())),
            Frame::Dubbo(frame) => Frame::Dubbo(dubbo::Frame::heartbeat_ack(frame)),
        }
    }

    /// Whether this heartbeat tells that the peer understands [`Head::going_away`].
    pub(super) fn is_hello(&self) -> bool {
        matches!(self, Frame::Bolt(frame) if frame.id() == HELLO)
    }

    /// Changes the header map or the attachments. A frame without a readable one goes on as it is.
    pub(super) fn edit(&mut self, edits: &[Edit<'_>]) {
        let edited = match self {
            Frame::Bolt(frame) => frame.edit(edits).map_err(|reject| reject.to_string()),
            Frame::Dubbo(frame) => frame.edit(edits).map_err(|reject| reject.to_string()),
        };
        if let Err(reject) = edited {
            tracing::debug!(reject, "a frame's headers are not edited");
        }
    }

    /// Whether a response says that the server had nobody to process the request: it has not been looked at.
    pub(super) fn is_busy(&self) -> bool {
        self.status() == self.head().status_of(Failure::Overloaded)
    }

    /// Status of a response in its own protocol.
    pub(super) fn status(&self) -> u16 {
        match self {
            Frame::Bolt(frame) => frame.status(),
            Frame::Dubbo(frame) => u16::from(frame.status()),
        }
    }

    /// The HTTP status that says most nearly what a response's says, for metrics that all protocols share. An exception
    /// of the application is a result like any other in both protocols.
    pub(super) fn http_status(&self) -> u16 {
        match self {
            Frame::Bolt(frame) => match frame.status() {
                0 => 200,
                4 => 503,
                5 | 8 | 0x10 => 502,
                6 => 404,
                7 => 504,
                9 => 400,
                _ => 500,
            },
            Frame::Dubbo(frame) => match frame.status() {
                dubbo::OK => 200,
                30 | 31 => 504,
                35 | 50 => 502,
                40 | 90 => 400,
                60 => 404,
                100 => 503,
                _ => 500,
            },
        }
    }

    /// What a request calls.
    pub(super) fn called(&self) -> Called<'_> {
        match self {
            Frame::Bolt(frame) => of_bolt(frame),
            Frame::Dubbo(frame) => of_dubbo(frame),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Frame::Bolt(frame) => frame.as_bytes(),
            Frame::Dubbo(frame) => frame.as_bytes(),
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Frame::Bolt(frame) => frame.into_bytes(),
            Frame::Dubbo(frame) => frame.into_bytes(),
        }
    }
}

/// What a request says about itself.
#[derive(Debug)]
pub(super) struct Called<'f> {
    /// Empty if the frame does not tell.
    pub(super) service: Cow<'f, str>,
    /// Empty if the frame does not tell.
    pub(super) method: Cow<'f, str>,
    /// How long the caller waits, if it says so.
    pub(super) timeout: Option<Duration>,
    pub(super) labels: Labels<'f>,
}

impl Called<'_> {
    /// Service and method as routes match them, like gRPC's.
    pub(super) fn path(&self) -> String {
        match self.method.as_ref() {
            "" => format!("/{}", self.service),
            method => format!("/{}/{method}", self.service),
        }
    }
}

/// Bolt's header map or Dubbo's attachments, which routes match as headers.
#[derive(Debug)]
pub(super) enum Labels<'f> {
    Bolt(bolt::Headers<'f>),
    Dubbo(dubbo::Attachments<'f>),
    /// There are none, or they cannot be read.
    None,
}

impl Fields for Labels<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Labels::Bolt(headers) => {
                let named = headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
                named.last().map(|(_, value)| Cow::Borrowed(value))
            }
            Labels::Dubbo(attachments) => {
                let named = attachments.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
                named.last().map(|(_, value)| Cow::Borrowed(value.as_bytes()))
            }
            Labels::None => None,
        }
    }
}

/// A request that is not SOFARPC's has no service; Bolt's own servers choose by the class then.
fn of_bolt(frame: &bolt::Frame) -> Called<'_> {
    let service = frame.service().map(Cow::Borrowed);
    Called {
        service: service.unwrap_or_else(|| String::from_utf8_lossy(frame.class())),
        method: Cow::Borrowed(frame.method().unwrap_or_default()),
        timeout: frame.timeout(),
        labels: frame.headers().map_or(Labels::None, Labels::Bolt),
    }
}

fn of_dubbo(frame: &dubbo::Frame) -> Called<'_> {
    let Ok(invocation) = frame.invocation() else {
        return Called { service: Cow::Borrowed(""), method: Cow::Borrowed(""), timeout: None, labels: Labels::None };
    };
    let attachments = invocation.attachments().ok();
    let millis = attachments.as_ref().and_then(|attachments| attachments.number(TIMEOUT));
    Called {
        timeout: millis
            .and_then(|millis| u64::try_from(millis).ok())
            .filter(|&millis| millis > 0)
            .map(Duration::from_millis),
        service: invocation.path,
        method: invocation.method,
        labels: attachments.map_or(Labels::None, Labels::Dubbo),
    }
}
