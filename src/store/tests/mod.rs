//! The store's format, as bytes on a disk: its layout, images of it that were frozen, flipped
//! bytes, nonsense.

mod agree;
mod doors;
mod flip;
mod frozen;
mod fuzz;
mod layout;
mod lone;
mod mend;
mod replica;
mod story;
