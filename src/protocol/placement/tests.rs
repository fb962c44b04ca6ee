//! Tests of the solver as a whole: properties over random clusters, clusters of known shape, and stories.

mod clusters;
mod least;
mod movement;
mod properties;
mod shapes;
mod stories;
