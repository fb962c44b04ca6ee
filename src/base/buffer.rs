//! How the pure rooms name payload they never see.

/// A buffer of the driver's pool. The machine reads no meaning into the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BufId(pub u32);

/// A place in a buffer, in blocks: where the payload of a block begins. Payload is always laid out on
/// the volume's block boundaries, so block `n` of a request lies `n` blocks behind its `BufRef`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BufRef {
    pub id: BufId,
    /// In blocks from the buffer's start.
    pub block: u32,
}

impl BufRef {
    /// The place `blocks` further on in the same buffer.
    pub fn plus(self, blocks: u32) -> BufRef {
        BufRef {
            id: self.id,
            block: self.block + blocks,
        }
    }
}
