//! Guests: a small Linux under QEMU, booted in seconds from nothing but a kernel and an initrd.
//!
//! ```text
//!   case ── Plan ── Guest ─┬─ talk ── virtio-serial ── inside::agent ── sh, fio, sarsen, load ── a disk
//!                          ├─ qmp (hot plug, migration, quit)
//!                          └─ NAME.console.log
//!   kernel (Debian's cloud kernel, by apt) ── initrd (busybox, modules, this program, libraries)
//! ```
//!
//! Everything that is made for it is kept below `target/guest/`. QEMU ends with the `Guest`, however the case ends.

pub mod daemon;
mod debian;
mod emulator;
mod initrd;
mod inside;
mod kernel;
mod package;
mod plan;
mod qmp;
mod running;
mod start;
pub mod talk;
pub mod try_out;

pub use initrd::which;
pub use inside::forward;
pub use inside::run as run_inside;
pub use plan::Plan;
pub use running::{Guest, Job};

use crate::harness::Step;
use crate::harness::daemon::text;
use std::path::{Path, PathBuf};

/// Where what is made for guests is kept.
fn cache() -> Step<PathBuf> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guest");
    std::fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// Tree and tools of a root file system, as an ext4 image of so many MiB. In blocks of 4 KiB, as it may lie on a disk of such sectors.
pub fn root_image(to: &Path, mib: u64, programs: &[(&str, PathBuf)]) -> Step<()> {
    let tree = to.with_extension("tree");
    let kernel = kernel::get(kernel::Which::Usual)?;
    initrd::unpack(&tree, &kernel, &with_ours(programs)?)?;
    let (tree_name, image) = (text(&tree), text(to));
    let arguments = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-d",
        &tree_name,
        &image,
        &format!("{mib}M"),
    ];
    let made = crate::harness::tools::run("mkfs.ext4", &arguments);
    std::fs::remove_dir_all(&tree)?;
    made.map(|_| ())
}

fn with_ours(programs: &[(&str, PathBuf)]) -> Step<Vec<(String, PathBuf)>> {
    let mut all = vec![("agent".to_owned(), std::env::current_exe()?)];
    all.extend(
        programs
            .iter()
            .map(|(name, path)| (String::from(*name), path.clone())),
    );
    Ok(all)
}

/// A TCP port of the loopback that nobody uses.
pub fn free_port() -> Step<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
