//! The Huffman code of RFC 7541 appendix B.
//!
//! It is canonical: codes are given out in order of length, and among those of one length in order of the symbol. So the
//! lengths say all. They are turned into a machine that takes four bits at a time; no code is shorter than five, so a
//! step yields one symbol at most.

use super::HpackError;

/// The end-of-string symbol, which must not appear.
const EOS: usize = 256;
/// Nodes of the code's tree that have children: one less than there are codes.
const NODES: usize = 256;

/// Bits of each symbol's code.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];

/// Each symbol's code, in its lowest bits.
const CODES: [u32; 257] = codes();
/// What four bits lead to from a node.
static STEPS: [[Step; 16]; NODES] = steps();

const fn codes() -> [u32; 257] {
    let mut codes = [0; 257];
    let (mut code, mut len) = (0_u32, 5);
    while len <= 30 {
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] == len {
                codes[symbol] = code;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        len += 1;
    }
    codes
}

/// A step of the machine.
#[derive(Clone, Copy)]
struct Step {
    next: u8,
    flags: u8,
    symbol: u8,
}

/// A symbol is complete.
const YIELDS: u8 = 1;
/// The string may end here: the last bits are the beginning of the end-of-string code, seven at most.
const MAY_END: u8 = 2;
/// It came upon the end-of-string code, or upon no code at all.
const FAILS: u8 = 4;

/// A child is a node, or a leaf: `LEAF` and a symbol.
const LEAF: u16 = 1 << 15;

const fn tree() -> [[u16; 2]; NODES] {
    let mut tree = [[0_u16; 2]; NODES];
    let (mut used, mut symbol) = (1_u16, 0);
    while symbol < 257 {
        let (mut node, mut bit) = (0_usize, LENGTHS[symbol] - 1);
        while bit > 0 {
            let side = (CODES[symbol] >> bit & 1) as usize;
            if tree[node][side] == 0 {
                tree[node][side] = used;
                used += 1;
            }
            node = tree[node][side] as usize;
            bit -= 1;
        }
        tree[node][(CODES[symbol] & 1) as usize] = LEAF | symbol as u16;
        symbol += 1;
    }
    tree
}

/// Nodes at which a string may end: up to seven ones from the root.
const fn ends(tree: &[[u16; 2]; NODES]) -> [bool; NODES] {
    let mut ends = [false; NODES];
    let (mut node, mut depth) = (0_usize, 0);
    while depth <= 7 {
        ends[node] = true;
        node = tree[node][1] as usize;
        depth += 1;
    }
    ends
}

const fn steps() -> [[Step; 16]; NODES] {
    let tree = tree();
    let ends = ends(&tree);
    let mut steps = [[Step { next: 0, flags: 0, symbol: 0 }; 16]; NODES];
    let mut node = 0;
    while node < NODES {
        let mut bits = 0;
        while bits < 16 {
            steps[node][bits] = step(&tree, &ends, node, bits);
            bits += 1;
        }
        node += 1;
    }
    steps
}

const fn step(tree: &[[u16; 2]; NODES], ends: &[bool; NODES], from: usize, bits: usize) -> Step {
    let mut step = Step { next: 0, flags: 0, symbol: 0 };
    let (mut node, mut bit) = (from, 4);
    while bit > 0 {
        bit -= 1;
        let child = tree[node][bits >> bit & 1];
        if child & LEAF == 0 {
            node = child as usize;
            continue;
        }
        let symbol = (child & !LEAF) as usize;
        if symbol == EOS {
            step.flags = FAILS;
            return step;
        }
        step.flags |= YIELDS;
        step.symbol = symbol as u8;
        node = 0;
    }
    step.next = node as u8;
    if ends[node] {
        step.flags |= MAY_END;
    }
    step
}

/// Decodes a string and appends it.
///
/// # Errors
/// The end-of-string code is in it, or its padding is not the beginning of that code.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
    out.reserve(coded.len() * 8 / 5);
    let (mut node, mut may_end) = (0_u8, true);
    for &byte in coded {
        for bits in [byte >> 4, byte & 15] {
            let step = STEPS[usize::from(node)][usize::from(bits)];
            if step.flags & YIELDS != 0 {
                out.push(step.symbol);
            }
            if step.flags & FAILS != 0 {
                return Err(HpackError::Huffman);
            }
            (node, may_end) = (step.next, step.flags & MAY_END != 0);
        }
    }
    if may_end { Ok(()) } else { Err(HpackError::Huffman) }
}

/// Encodes a string and appends it. The encoder of this crate does not: it costs both ends time, and a sidecar's peers
/// are near. What peers send is tested with it.
pub fn encode(plain: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0_u64, 0);
    for &symbol in plain {
        bits = bits << LENGTHS[usize::from(symbol)] | u64::from(CODES[usize::from(symbol)]);
        held += u32::from(LENGTHS[usize::from(symbol)]);
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.push((bits << (8 - held)) as u8 | 0xff >> held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_codes_are_those_of_the_rfc() {
        let of = |symbol: usize| (CODES[symbol], LENGTHS[symbol]);
        assert_eq!((of(0), of(b'a'.into()), of(b'~'.into())), ((0x1ff8, 13), (0x3, 5), (0x1ffd, 13)));
        assert_eq!((of(249), of(255), of(EOS)), ((0xffffffe, 28), (0x3ffffee, 26), (0x3fffffff, 30)));
        let kraft: u64 = LENGTHS.iter().map(|&len| 1_u64 << (30 - len)).sum();
        assert_eq!(kraft, 1 << 30, "every string of bits is a code or the beginning of one");
    }

    #[test]
    fn padding_is_the_beginning_of_the_end_code_and_short() {
        let decoded = |coded: &[u8]| {
            let mut out = Vec::new();
            decode(coded, &mut out).map(|()| out)
        };
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        for wrong in [&[0b0001_1110][..], &[0b0001_1111, 0xff], &[0xff], &[0xff, 0xff, 0xff, 0xff], &[0b0001_1000]] {
            assert_eq!(decoded(wrong), Err(HpackError::Huffman), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(plain: Vec<u8>) {
            let (mut coded, mut decoded) = (Vec::new(), Vec::new());
            encode(&plain, &mut coded);
            decode(&coded, &mut decoded).unwrap();
            prop_assert_eq!(decoded, plain);
        }
    }
}
