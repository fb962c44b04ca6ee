//! Nodes of a cluster in one process: real disks, real rings, real TCP. In place of the control plane the tests give the orders.

mod cuts;
mod memory;
mod site;
mod stories;

use site::Site;
