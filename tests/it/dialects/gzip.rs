//! gzip without compression (stored blocks, RFC 1951 and 1952), for bodies that a test encodes itself.

use bytes::Bytes;

const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const LARGEST_BLOCK: usize = 0xffff;

/// Encodes bytes.
pub(crate) fn pack(bytes: &[u8]) -> Bytes {
    let mut out = HEAD.to_vec();
    let blocks: Vec<&[u8]> = bytes.chunks(LARGEST_BLOCK).collect();
    for (at, block) in blocks.iter().enumerate() {
        let length = u16::try_from(block.len()).expect("a block is short");
        out.push(u8::from(at + 1 == blocks.len()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(*block);
    }
    out.extend(crc32(bytes).to_le_bytes());
    out.extend(u32::try_from(bytes.len()).expect("a test's body is short").to_le_bytes());
    out.into()
}

/// Decodes the output of [`pack`]. Returns `None` for any other bytes.
pub(crate) fn unpack(packed: &[u8]) -> Option<Bytes> {
    let mut rest = packed.strip_prefix(&HEAD)?;
    let mut out = Vec::new();
    loop {
        let (head, body) = rest.split_first_chunk::<5>()?;
        let length = usize::from(u16::from_le_bytes([head[1], head[2]]));
        out.extend(body.get(..length)?);
        rest = &body[length..];
        match head[0] {
            0 => {}
            1 => break,
            _ => return None,
        }
    }
    let sum = rest.first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == crc32(&out)).then(|| out.into())
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[test]
fn gzip_round_trips() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926, "the check value of the polynomial");
    let long = vec![7; LARGEST_BLOCK + 5];
    for bytes in [&b"a"[..], &long] {
        assert_eq!(unpack(&pack(bytes)).as_deref(), Some(bytes));
    }
    assert_eq!(unpack(b"plain"), None);
}
