//! Fields of an HTTP/1 head, as routing sees them.

use std::borrow::Cow;

use weir_codec::http1::Header;

use crate::snapshot::Fields;

/// The fields of a parsed head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderFields<'a, 'b>(pub(crate) &'a [Header<'b>]);

impl Fields for HeaderFields<'_, '_> {
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values =
            self.0.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |joined, value| Cow::Owned([&joined, &b","[..], value].concat())))
    }
}
