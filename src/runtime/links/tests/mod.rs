//! Links as machines, in pairs and against bytes that nobody sends; and on real rings.

mod bounds;
mod covers;
mod ends;
mod frames;
mod fuzz;
mod pairs;
mod rings;
mod splits;
