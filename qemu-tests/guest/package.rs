//! Packages of the distribution whose files a guest needs: fetched by apt, or from the archive where apt does not know
//! them, and unpacked below `target/guest/`, never installed here.

use super::cache;
use crate::harness::Step;
use crate::harness::daemon::text;
use crate::harness::tools::run_within;
use std::path::PathBuf;

/// The folder with a package's files.
pub fn unpacked(package: &str) -> Step<PathBuf> {
    let fetch = format!("apt-get download -qq -o APT::Sandbox::User=root {package}");
    brought(package, &fetch)
}

/// The same of a package that lies at this address; the folder is called `name`.
pub fn unpacked_from(name: &str, address: &str) -> Step<PathBuf> {
    let fetch = format!("/usr/lib/apt/apt-helper download-file '{address}' package.deb >/dev/null");
    brought(name, &fetch)
}

/// The folder of this name, with the files of the package that the command `fetch` leaves where it runs.
fn brought(name: &str, fetch: &str) -> Step<PathBuf> {
    let place = cache()?.join(name);
    if place.exists() {
        return Ok(place);
    }
    // Beside its place first, so that it is there as a whole or not at all.
    let aside = cache()?.join(format!("new-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&aside)?;
    let script = format!("cd '{}' && {fetch} && dpkg -x ./*.deb tree", text(&aside),);
    let done = run_within(600, "sh", &["-c", &script]);
    let moved = done.and_then(|_| {
        let moved = std::fs::rename(aside.join("tree"), &place);
        // Another test may have been faster.
        if place.exists() { Ok(()) } else { Ok(moved?) }
    });
    std::fs::remove_dir_all(&aside)?;
    moved.map(|()| place)
}

/// Fetches the lists of packages anew.
pub fn update() -> Step<()> {
    run_within(300, "apt-get", &["update", "-qq"]).map(|_| ())
}
