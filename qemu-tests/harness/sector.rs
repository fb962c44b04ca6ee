//! What a written sector holds: its address, the number of the write, bytes that follow from both, and a crc.
//! So whatever is read tells where it belongs and by which write it came, or that it is nobody's.

use sarsen::base::mix64;

/// Bytes of a sector.
pub const SECTOR: usize = 512;
const CRC_AT: usize = SECTOR - 4;

/// The number of a write, from one on.
pub type WriteNo = u32;
/// What reads as zeroes: never written, or made zero by a write that is known by its place.
pub const ZEROES: WriteNo = 0;

/// Fills a payload that begins at sector `first`.
pub fn fill(payload: &mut [u8], first: u64, write: WriteNo) {
    for (address, sector) in (first..).zip(payload.as_chunks_mut::<SECTOR>().0) {
        let mut word = mix64(address ^ u64::from(write) << 40);
        sector[..8].copy_from_slice(&address.to_le_bytes());
        sector[8..16].copy_from_slice(&u64::from(write).to_le_bytes());
        for bytes in sector[16..CRC_AT].chunks_mut(8) {
            word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
        let crc = crc32c::crc32c(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// By which write a sector came; the reason where it is nobody's.
pub fn read(sector: &[u8], address: u64) -> Result<WriteNo, String> {
    if sector.iter().all(|&byte| byte == 0) {
        return Ok(ZEROES);
    }
    let number = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("8 bytes"));
    let (found, write) = (number(0), number(8));
    if crc32c::crc32c(&sector[..CRC_AT]).to_le_bytes() != sector[CRC_AT..] {
        return Err(format!(
            "sector {address} is torn or garbage (says address {found}, write {write})"
        ));
    }
    if found != address {
        return Err(format!(
            "sector {address} holds what belongs to sector {found}"
        ));
    }
    WriteNo::try_from(write).map_err(|_| format!("sector {address} is of write {write}"))
}
