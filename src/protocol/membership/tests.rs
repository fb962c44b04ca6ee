//! The tests of this room: properties over seeds, stories, and single sentences.

mod accusing;
mod clocks;
mod cost;
mod holding;
mod properties;
mod stories;
mod world;
