//! Placeholder while being written.
pub(crate) async fn serve(_: crate::worker::Connection, _: crate::io::Buf) {}
