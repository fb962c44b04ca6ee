//! Packages of the distribution whose files a guest needs: fetched by apt, or from the archive where apt does not know
//! them, and unpacked below `target/guest/`, never installed here.

use super::cache;
use crate::harness::Step;
use crate::harness::daemon::text;
use crate::harness::tools::run_within;
use std::path::{Path, PathBuf};

/// The folder with a package's files.
pub fn unpacked(package: &str) -> Step<PathBuf> {
    brought(package, |_| Ok(apt_get(package, "")))
}

/// The same of a package that lies at this address; the folder is called `name`.
pub fn unpacked_from(name: &str, address: &str) -> Step<PathBuf> {
    let fetch = format!("/usr/lib/apt/apt-helper download-file '{address}' package.deb >/dev/null");
    brought(name, |_| Ok(fetch))
}

/// The same of its newer version in the distribution's backports.
pub fn backported(package: &str) -> Step<PathBuf> {
    brought(&format!("{package}-backports"), |folder| {
        Ok(apt_get(package, &backports(folder)?))
    })
}

/// The command that fetches a package to where it runs.
fn apt_get(package: &str, options: &str) -> String {
    format!("apt-get download -qq -o APT::Sandbox::User=root {options} {package}")
}

/// Lists of backports in a folder, and nothing else of this machine's apt: the options that have apt use them.
fn backports(folder: &Path) -> Step<String> {
    let release = release()?;
    let (source, lists) = (folder.join("backports.list"), folder.join("lists"));
    let key = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = format!("deb [{key}] http://deb.debian.org/debian {release}-backports main\n");
    std::fs::write(&source, line)?;
    std::fs::create_dir_all(lists.join("partial"))?;
    let options = format!(
        "-o Dir::Etc::sourcelist='{}' -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists='{}' \
         -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root",
        text(&source),
        text(&lists)
    );
    let update = format!("apt-get update -qq {options}");
    run_within(300, "sh", &["-c", &update]).map(|_| options)
}

/// The folder of this name, with the files of the package that a command leaves where it runs. `fetch` tells the command,
/// and may put into that folder what it needs; all but the files goes when they are there.
fn brought(name: &str, fetch: impl FnOnce(&Path) -> Step<String>) -> Step<PathBuf> {
    let place = cache()?.join(name);
    if place.exists() {
        return Ok(place);
    }
    // Beside its place first, so that it is there as a whole or not at all.
    let aside = cache()?.join(format!("new-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&aside)?;
    let done = fetch(&aside).and_then(|fetch| {
        let script = format!("cd '{}' && {fetch} && dpkg -x ./*.deb tree", text(&aside));
        run_within(600, "sh", &["-c", &script])
    });
    let moved = done.and_then(|_| {
        let moved = std::fs::rename(aside.join("tree"), &place);
        // Another test may have been faster.
        if place.exists() { Ok(()) } else { Ok(moved?) }
    });
    std::fs::remove_dir_all(&aside)?;
    moved.map(|()| place)
}

/// The name of the Debian release that this machine runs.
pub fn release() -> Step<String> {
    let release = std::fs::read_to_string("/etc/os-release")?;
    let value = |key: &str| {
        let mut values = release.lines().filter_map(|line| line.strip_prefix(key));
        values
            .next()
            .map(|value| value.trim_matches('"').to_owned())
    };
    let name = value("VERSION_CODENAME=").filter(|_| value("ID=").as_deref() == Some("debian"));
    name.ok_or_else(|| "guests of this kind are made on Debian only".into())
}

/// Fetches the lists of packages anew.
pub fn update() -> Step<()> {
    run_within(300, "apt-get", &["update", "-qq"]).map(|_| ())
}
