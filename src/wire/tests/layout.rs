//! The byte tables of docs/wire_format.md, held against the code: fields follow one another without a gap, known values stand at
//! the documented places, and every body is as long as its row says.

use super::samples::{AT, COMPARE, FILL, HEADER, MEND, all, named};
use super::{DISK, encode};
use crate::base::bytes::Take;
use crate::protocol::replication::fill::FillAnswer;
use crate::protocol::replication::{Answer, Change, Message};
use crate::protocol::scrub::MendAnswer;
use crate::wire::*;

const PAGE: &str = include_str!("../../docs/wire_format.md");

/// What stands under a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let (_, behind) = PAGE.split_once(heading).expect(heading);
    behind
        .split_once("\n#")
        .map_or(behind, |(section, _)| section)
}

/// The cells of the rows under a heading that begin with a number.
fn rows(heading: &str) -> Vec<(usize, Vec<&'static str>)> {
    let lines = section(heading).lines();
    let cells = lines.filter_map(|line| {
        let line = line.strip_prefix("| ")?.strip_suffix('|')?;
        let mut cells = line.split('|').map(str::trim);
        Some((cells.next()?.parse().ok()?, cells.collect()))
    });
    cells.collect()
}

#[test]
fn fields_of_fixed_sizes_follow_one_another() {
    let tables = [("## Hello", HELLO_LEN), ("## Head", HEAD_LEN)];
    for (heading, len) in tables {
        let fields = rows(heading).into_iter().filter(|(_, row)| row.len() == 2);
        let end = fields.fold(0, |end, (at, row)| {
            assert_eq!(at, end, "{heading}: {row:?}");
            at + row[0].parse::<usize>().unwrap()
        });
        assert_eq!(end, len, "{heading}");
        assert!(section(heading).starts_with(&format!(": {len} bytes\n")));
    }
    assert!(section("## Head").contains(&format!("at most {BODY_MAX} |")));
    assert!(section("## Head").contains(&format!("at most {PAYLOAD_MAX} |")));
    assert!(section("### Kind 2").contains(&format!("at most {ENTRIES_MAX} entries")));
}

#[test]
fn a_hello_is_what_its_table_says() {
    let mut bytes = Vec::new();
    super::hellos::hello().encode(&mut bytes);
    let mut told = b"SARSENHI\x01\0\x02\0\x07\0\0\0a cluster's name\x0c".to_vec();
    told.resize(60, 0);
    told.extend(crc32c::crc32c(&told).to_le_bytes());
    assert_eq!(bytes, told);
}

/// The head of `name`, of which `kind` and what stands from 36 to 64 differ.
fn has_head(name: &str, kind: u8, own: &[u8; 28]) {
    let bytes = encode(&named(name));
    let (head, body) = bytes.split_at(72);
    let payload = named(name).1 * 4096;
    let mut told = b"SRSN".to_vec();
    told.extend([kind, 0, 0, 0]);
    told.extend((body.len() as u32).to_le_bytes());
    told.extend(payload.to_le_bytes());
    told.extend(crc32c::crc32c(body).to_le_bytes());
    told.extend(DISK.0.to_le_bytes());
    told.extend([9, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0]);
    told.extend(own);
    told.extend([0; 4]);
    told.extend(crc32c::crc32c(&told).to_le_bytes());
    assert_eq!(head, told, "{name}");
}

#[test]
fn a_head_is_what_its_table_says() {
    let mut own = [0; 28];
    own[..12].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    own[12..20].copy_from_slice(&HEADER.range.0.to_le_bytes());
    own[20] = 5;
    has_head("write", 1, &own);
    has_head("value_newest", 2, &own);
    let mut own = [0; 28];
    own[12..20].copy_from_slice(&FILL.id.to_le_bytes());
    has_head("ask_list", 3, &own);
    has_head("content_data", 4, &own);
    let bytes = encode(&named("mend_blocks"));
    assert_eq!(bytes[24..36], [9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    own[..4].copy_from_slice(&MEND.asker.0.to_le_bytes());
    assert_eq!((bytes[4], &bytes[36..64]), (6, &own[..]));
    let bytes = encode(&named("compare_held"));
    own[20..].copy_from_slice(&COMPARE.life.to_le_bytes());
    assert_eq!(bytes[24..36], [9, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((bytes[4], &bytes[36..64]), (8, &own[..]));
}

/// How many there are of what a row says to be there *for each*, in its order.
fn repeats(frame: &Frame) -> Vec<usize> {
    match frame {
        Frame::Message(
            _,
            Message::Change {
                change: Change::Write { run, .. },
                ..
            },
        ) => vec![run.count() as usize],
        Frame::Answer(_, Answer::Sealed { window, .. }) => vec![window.len()],
        Frame::FillAnswer(_, answer) => match answer {
            FillAnswer::Fences { fences, .. } => vec![fences.len()],
            FillAnswer::Listed { chunks, .. } => vec![chunks.len()],
            FillAnswer::Content {
                content, entries, ..
            } => vec![content.data.count_ones() as usize, entries.len()],
            _ => Vec::new(),
        },
        Frame::MendAsk(_, of) | Frame::MendAnswer(_, MendAnswer::Blocks(of)) => {
            vec![of.blocks.count_ones() as usize]
        }
        _ => Vec::new(),
    }
}

/// The sizes that stand behind the fields of a part of a row, in all.
fn size(fields: &str) -> usize {
    let sizes = fields.split(", ").filter_map(|field| {
        let (_, size) = field.rsplit_once(' ')?;
        Some(size.parse::<usize>().expect(field))
    });
    sizes.sum()
}

#[test]
fn every_body_is_as_long_as_its_row_says() {
    for (name, of) in all() {
        let bytes = encode(&of);
        let (kind, body) = (bytes[4], &bytes[HEAD_LEN..]);
        let rows = rows(&format!("### Kind {kind}"));
        let row = rows
            .iter()
            .find(|(tag, row)| *tag == usize::from(body[0]) && row.len() == 3);
        let (_, row) = row.unwrap_or_else(|| panic!("{name} has no row"));
        let mut repeats = repeats(&of.0).into_iter();
        let parts = row[1].split("; ").map(|part| match part.split_once(": ") {
            Some((_, each)) => size(each) * repeats.next().expect(name),
            None => size(part),
        });
        let len = 1 + parts.sum::<usize>();
        assert_eq!(body.len(), len, "{name}");
        assert_eq!(repeats.next(), None, "{name}");
        let has_payload = match row[2].starts_with("16; none") {
            true => ["content_data", "mend_blocks"].contains(&name),
            false => row[2] != "none",
        };
        assert_eq!(of.1 != 0, has_payload, "{name}");
    }
}

#[test]
fn content_is_what_its_row_says() {
    let bytes = encode(&named("content_data"));
    let mut take = Take::new(&bytes[HEAD_LEN..]);
    let stamp = |take: &mut Take<'_>| {
        let epoch = (
            take.u32().unwrap(),
            take.u32().unwrap(),
            take.u32().unwrap(),
        );
        assert_eq!((epoch, take.u64()), ((1, 2, 3), Some(8)));
    };
    assert_eq!(take.u8(), Some(3));
    let place = [take.u64(), take.u64(), take.u64()];
    assert_eq!(
        place,
        [Some(AT.family.0), Some(AT.layer.0), Some(AT.chunk.0)]
    );
    assert_eq!(take.u32(), Some(4));
    stamp(&mut take);
    assert_eq!((take.u16(), take.u16()), (Some(0x0003), Some(0x00f0)));
    assert_eq!(
        (take.u32(), take.u32()),
        (Some(0xaabb_ccdd), Some(0x0102_0304))
    );
    assert_eq!(take.u32(), Some(2));
    for _ in 0..2 {
        assert_eq!(take.u64(), Some(HEADER.range.0));
        stamp(&mut take);
        assert_eq!((take.u16(), take.u32()), (Some(0x8001), Some(4)));
    }
    assert_eq!(take.left(), 0);
}
