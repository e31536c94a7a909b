//! Header compression (RFC 7541).

mod decode;
mod encode;
mod huffman;
mod table;

pub use decode::{Decoder, HpackError};
pub use encode::{encode, encode_status};
pub use huffman::encode as huffman_encode;
