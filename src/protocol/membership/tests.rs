//! The tests of this room: properties over seeds, stories, and single sentences.

mod clocks;
mod cost;
mod holding;
mod properties;
mod stories;
mod world;
