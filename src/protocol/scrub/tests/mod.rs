//! The mender's stories, and worlds of a few disks in which everything goes wrong that can.

mod stories;
mod world;
