//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the `traceparent` field.

/// Length of a `traceparent` of version 00.
const LEN: usize = 55;
/// The `sampled` flag.
const SAMPLED: u8 = 1;

/// Where a request stands in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace_id: [u8; 16],
    /// The caller's span; absent where the trace begins here.
    pub(crate) parent_id: Option<[u8; 8]>,
    /// The proxy's own span, which the upstream sees as its parent.
    pub(crate) span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Goes on with what the caller sent, or begins a trace where that is absent or malformed. `sample` decides
    /// whether a trace that begins here is recorded.
    pub(crate) fn next(received: Option<&[u8]>, sample: impl FnOnce() -> bool) -> Self {
        let span_id = nonzero(fastrand::u64(..)).to_be_bytes();
        match received.and_then(parse) {
            Some((trace_id, parent_id, flags)) => TraceContext { trace_id, parent_id: Some(parent_id), span_id, flags },
            None => TraceContext {
                trace_id: random_trace_id(),
                parent_id: None,
                span_id,
                flags: if sample() { SAMPLED } else { 0 },
            },
        }
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The field's value to send on.
    pub(crate) fn value(&self) -> [u8; LEN] {
        let mut value = [b'-'; LEN];
        hex(&[0], &mut value[..2]);
        hex(&self.trace_id, &mut value[3..35]);
        hex(&self.span_id, &mut value[36..52]);
        hex(&[self.flags], &mut value[53..]);
        value
    }

    /// The trace id as text.
    pub(crate) fn trace_id_text(&self) -> String {
        let mut text = [0; 32];
        hex(&self.trace_id, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn random_trace_id() -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&nonzero(fastrand::u64(..)).to_be_bytes());
    id[8..].copy_from_slice(&fastrand::u64(..).to_be_bytes());
    id
}

/// An id of zeros is invalid.
fn nonzero(id: u64) -> u64 {
    id.max(1)
}

fn hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

type Parsed = ([u8; 16], [u8; 8], u8);

/// Version 00 has exactly this form; a later version may go on after another dash, and `ff` is none.
fn parse(value: &[u8]) -> Option<Parsed> {
    let longer_is_fine = value.len() == LEN || (!value.starts_with(b"00") && value.get(LEN) == Some(&b'-'));
    let dashes = value.len() >= LEN && [2, 35, 52].iter().all(|&at| value[at] == b'-');
    if !dashes || !longer_is_fine || value.starts_with(b"ff") {
        return None;
    }
    let mut version = [0];
    let (mut trace_id, mut parent_id, mut flags) = ([0; 16], [0; 8], [0]);
    unhex(&value[..2], &mut version)?;
    unhex(&value[3..35], &mut trace_id)?;
    unhex(&value[36..52], &mut parent_id)?;
    unhex(&value[53..LEN], &mut flags)?;
    (trace_id != [0; 16] && parent_id != [0; 8]).then_some((trace_id, parent_id, flags[0] & SAMPLED))
}

/// Lower-case digits only, as the specification demands.
fn unhex(text: &[u8], out: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_goes_on_with_a_new_span() {
        let context = TraceContext::next(Some(SENT), || false);
        let value = String::from_utf8(context.value().to_vec()).unwrap();
        assert!(value.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && value.ends_with("-01"), "{value}");
        assert_ne!(&value.as_bytes()[36..52], &SENT[36..52]);
        assert!(context.is_sampled() && context.parent_id.is_some());
        assert_eq!(context.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn what_is_malformed_begins_a_trace() {
        let upper = SENT.to_ascii_uppercase();
        let zeros = [b"00-", &[b'0'; 32][..], &SENT[35..]].concat();
        let longer = [SENT, b"-x"].concat();
        let version_ff = [b"ff", &SENT[2..]].concat();
        for malformed in [&b""[..], b"00-4bf9", &upper, &zeros, &longer, &version_ff] {
            assert!(TraceContext::next(Some(malformed), || true).parent_id.is_none(), "{malformed:?}");
        }
        let later_version = [b"01", &SENT[2..], b"-more"].concat();
        assert!(TraceContext::next(Some(&later_version), || true).parent_id.is_some());
    }
}
