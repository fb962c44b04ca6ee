//! The bytes of a disk, cheap to copy: pages of 4 KiB that copies share until one of them is written.
//!
//! A page that was never written takes no memory and reads as zeroes. Copying a medium costs one counter
//! a page, so that thousands of crash states are built from one run without copying its data; and a page
//! remembers its hash, so that telling two of them apart costs a number a page.

use crate::base::{BLOCK, SECTOR, mix64};
use std::cell::Cell;
use std::rc::Rc;

const PAGE: usize = BLOCK as usize;

static ZEROES: [u8; PAGE] = [0; PAGE];

#[derive(Clone)]
struct Page {
    bytes: [u8; PAGE],
    /// Of the bytes; zero where it has not been computed.
    hash: Cell<u64>,
}

/// The content of one disk.
#[derive(Clone)]
pub struct Medium {
    pages: Vec<Option<Rc<Page>>>,
}

impl Medium {
    /// A medium of `bytes` bytes that reads as zeroes.
    pub fn new(bytes: u64) -> Medium {
        Medium {
            pages: vec![None; bytes.div_ceil(BLOCK) as usize],
        }
    }

    /// In bytes.
    pub fn len(&self) -> u64 {
        self.pages.len() as u64 * BLOCK
    }

    /// Makes it longer; what is new reads as zeroes.
    pub fn grow(&mut self, bytes: u64) {
        let pages = bytes.div_ceil(BLOCK) as usize;
        self.pages.resize(pages.max(self.pages.len()), None);
    }

    /// The 4 KiB page `n`.
    pub fn page(&self, n: usize) -> &[u8; PAGE] {
        match &self.pages[n] {
            Some(page) => &page.bytes,
            None => &ZEROES,
        }
    }

    /// The bytes of one 512 B sector.
    pub fn sector(&self, sector: u64) -> &[u8] {
        let at = (sector * SECTOR % BLOCK) as usize;
        &self.page((sector * SECTOR / BLOCK) as usize)[at..at + SECTOR as usize]
    }

    /// Whether the page `n` was ever written with anything but zeroes.
    pub fn is_written(&self, n: usize) -> bool {
        self.pages[n].is_some()
    }

    /// Fills `into` with what is at `offset`, a multiple of 4096.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        let first = (offset / BLOCK) as usize;
        for (n, part) in into.chunks_mut(PAGE).enumerate() {
            part.copy_from_slice(&self.page(first + n)[..part.len()]);
        }
    }

    /// Puts `bytes` at `offset`; both in whole sectors.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut left) = (offset, bytes);
        while !left.is_empty() {
            let inside = (at % BLOCK) as usize;
            let (part, rest) = left.split_at(left.len().min(PAGE - inside));
            self.write_page((at / BLOCK) as usize, inside, part);
            at += part.len() as u64;
            left = rest;
        }
    }

    /// Makes `len` bytes from `offset` on zeroes.
    pub fn zero(&mut self, offset: u64, len: u64) {
        let mut at = offset;
        while at < offset + len {
            let part = (BLOCK - at % BLOCK).min(offset + len - at);
            match part == BLOCK {
                true => self.pages[(at / BLOCK) as usize] = None,
                false => self.write(at, &ZEROES[..part as usize]),
            }
            at += part;
        }
    }

    fn write_page(&mut self, n: usize, inside: usize, part: &[u8]) {
        let page = &mut self.pages[n];
        if part.len() == PAGE && part == ZEROES {
            *page = None;
            return;
        }
        if let Some(own) = page.as_mut().and_then(Rc::get_mut) {
            own.bytes[inside..inside + part.len()].copy_from_slice(part);
            own.hash.set(0);
            return;
        }
        let mut bytes = page.as_ref().map_or(ZEROES, |shared| shared.bytes);
        bytes[inside..inside + part.len()].copy_from_slice(part);
        *page = Some(Rc::new(Page {
            bytes,
            hash: Cell::new(0),
        }));
    }

    /// Turns the bits of `mask` over in one byte.
    pub fn flip(&mut self, offset: u64, mask: u8) {
        let (n, inside) = ((offset / BLOCK) as usize, (offset % BLOCK) as usize);
        let byte = self.page(n)[inside] ^ mask;
        self.write_page(n, inside, &[byte]);
    }

    /// A number that differs where the content differs.
    pub fn hash(&self) -> u64 {
        self.pages
            .iter()
            .enumerate()
            .filter_map(|(n, page)| Some((n as u64, page.as_deref()?)))
            .fold(0, |sum, (n, page)| sum ^ mix64(page.hash() ^ mix64(n)))
    }
}

impl Page {
    fn hash(&self) -> u64 {
        if self.hash.get() == 0 {
            let words = self.bytes.as_chunks::<8>().0;
            let hash = words.iter().fold(1, |sum: u64, word| {
                (sum ^ u64::from_le_bytes(*word))
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(29)
            });
            // A page of zeroes counts as one that was never written.
            let zeroes = self.bytes == ZEROES;
            self.hash.set(if zeroes { u64::MAX } else { hash | 1 });
        }
        self.hash.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_what_is_written_later() {
        let mut medium = Medium::new(4 * BLOCK);
        medium.write(BLOCK, &[7; 4096]);
        let copy = medium.clone();
        medium.write(BLOCK + SECTOR, &[9; 512]);
        assert_eq!(copy.page(1)[512], 7);
        assert_eq!((medium.page(1)[511], medium.page(1)[512]), (7, 9));
    }

    #[test]
    fn a_write_across_pages_lands_in_both() {
        let mut medium = Medium::new(4 * BLOCK);
        medium.write(BLOCK - SECTOR, &[5; 1024]);
        let mut back = [0; 8192];
        medium.read(0, &mut back);
        assert_eq!(back.iter().filter(|&&byte| byte == 5).count(), 1024);
        assert_eq!(back[4096 - 512..4096 + 512], [5; 1024]);
    }

    #[test]
    fn the_hash_tells_contents_apart_and_only_them() {
        let mut medium = Medium::new(4 * BLOCK);
        let empty = medium.hash();
        medium.write(0, &[1; 512]);
        let written = medium.hash();
        assert_ne!(written, empty);
        medium.flip(3, 0x80);
        assert_ne!(medium.hash(), written);
        medium.flip(3, 0x80);
        assert_eq!(medium.hash(), written);
    }
}
