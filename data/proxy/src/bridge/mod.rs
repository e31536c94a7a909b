//! Placeholder while being written.
use crate::http1::Facts;
use crate::io::Buf;
use crate::phases::{Answer, Destination};
use crate::snapshot::{ForwardAction, RouteEntry};
use crate::trace::TraceContext;
use crate::worker::{Connection, Ticket};
#[derive(Debug)]
pub(crate) struct Outgoing;
pub(crate) fn outgoing_from_http1(
    _: &weir_codec::http1::RequestHead<'_, '_>,
    _: &str,
    _: Destination,
    _: &RouteEntry,
    _: &ForwardAction,
    _: Option<&TraceContext>,
    _: Option<std::net::IpAddr>,
) -> Result<Outgoing, Answer> {
    Ok(Outgoing)
}
pub(crate) async fn from_http1(
    _: &mut Connection,
    _: &mut Buf,
    _: &Facts,
    _: Ticket,
    _: Outgoing,
) -> crate::http1::After {
    crate::http1::After::Close
}
