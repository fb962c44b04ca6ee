//! What the tables demand, at sites that take seconds.

use super::*;

#[test]
fn a_small_site_scales_as_the_large_ones() {
    let world = World {
        clock: || Duration::ZERO,
        heap: || 0,
    };
    assert!(print(world, Extent::Small, |_| true));
}
