//! Settings of either end (RFC 9113 section 6.5).

use crate::error::{PROTOCOL, Reason, Violation};
use crate::flow::{DEFAULT_WINDOW, MAX_WINDOW};
use crate::frame::{self, DEFAULT_MAX_FRAME_BYTES};
use crate::limits::{Config, STREAMS_BEFORE_SETTINGS};

const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What the peer has told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerSettings {
    pub(crate) max_streams: usize,
    pub(crate) stream_window: u32,
    pub(crate) max_frame_bytes: usize,
}

impl Default for PeerSettings {
    fn default() -> Self {
        PeerSettings {
            max_streams: STREAMS_BEFORE_SETTINGS,
            stream_window: DEFAULT_WINDOW,
            max_frame_bytes: DEFAULT_MAX_FRAME_BYTES,
        }
    }
}

impl PeerSettings {
    /// Takes over what a SETTINGS frame says. The size of the header table does not concern us: we use none.
    pub(crate) fn apply(&mut self, payload: &[u8], us: Role) -> Result<(), Violation> {
        if !payload.len().is_multiple_of(6) {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        }
        for setting in payload.as_chunks::<6>().0 {
            let [a, b, value @ ..] = *setting;
            self.set(u16::from_be_bytes([a, b]), u32::from_be_bytes(value), us)?;
        }
        Ok(())
    }

    fn set(&mut self, id: u16, value: u32, us: Role) -> Result<(), Violation> {
        match id {
            // A server must not speak of push at all but to say that there is none.
            ENABLE_PUSH if value > u32::from(us == Role::Server) => return Err(PROTOCOL),
            MAX_CONCURRENT_STREAMS => self.max_streams = value as usize,
            INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                return Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
            }
            INITIAL_WINDOW_SIZE => self.stream_window = value,
            MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => return Err(PROTOCOL),
            MAX_FRAME_SIZE => self.max_frame_bytes = value as usize,
            _ => {}
        }
        Ok(())
    }
}

/// Says what we want: the settings, and a window for the connection that is larger than the default.
pub(crate) fn put_own(out: &mut Vec<u8>, config: &Config, us: Role) {
    let mut payload = Vec::with_capacity(24);
    let mut set = |id: u16, value: u32| {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    };
    match us {
        Role::Client => set(ENABLE_PUSH, 0),
        Role::Server => set(MAX_CONCURRENT_STREAMS, config.max_streams as u32),
    }
    set(INITIAL_WINDOW_SIZE, config.stream_window_bytes);
    set(MAX_HEADER_LIST_SIZE, config.max_header_list_bytes as u32);
    frame::put(out, (frame::SETTINGS, 0, 0), &payload);
    let more = config.connection_window_bytes.saturating_sub(DEFAULT_WINDOW);
    if more > 0 {
        frame::put_window_update(out, 0, more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_told_as_the_rfc_says() {
        let flow = Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
        for (payload, us, result) in [
            (&[0, 2, 0, 0, 0, 1][..], Role::Server, Ok(())),
            (&[0, 2, 0, 0, 0, 2], Role::Server, Err(PROTOCOL)),
            (&[0, 2, 0, 0, 0, 1], Role::Client, Err(PROTOCOL)),
            (&[0, 4, 0x80, 0, 0, 0], Role::Client, flow),
            (&[0, 5, 0, 0, 0x3f, 0xff], Role::Client, Err(PROTOCOL)),
            (&[0, 5, 1, 0, 0, 0], Role::Client, Err(PROTOCOL)),
            (&[0, 99, 0xff, 0xff, 0xff, 0xff], Role::Client, Ok(())),
            (&[0, 4, 0], Role::Client, Err(Violation::Connection(Reason::FRAME_SIZE_ERROR))),
        ] {
            assert_eq!(PeerSettings::default().apply(payload, us), result, "{payload:?}");
        }
    }
}
