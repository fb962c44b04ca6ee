//! The guest's kernel: Debian's cloud kernel, a package from apt, unpacked once below `target/guest/`; and a newer one for
//! what the usual one has not, and the oldest that is supported.

use super::{cache, package};
use crate::harness::daemon::text;
use crate::harness::tools::{attempt, run};
use crate::harness::{Step, ensure};
use std::path::{Path, PathBuf};

/// What a guest may load, by name; what each needs is found by `modprobe --show-depends`.
const MODULES: [&str; 11] = [
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "ublk_drv",
    "nbd",
    "xfs",
    "dm-flakey",
    "dm-log-writes",
    "loop",
];
const PREFIX: &str = "linux-image-";
const OLDEST: &str = "linux-image-6.1.";
const SUFFIX: &str = "-cloud-amd64";

/// Which kernel a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest that apt has.
    Usual,
    /// The oldest that Sarsen runs on, 6.1: Debian 12's own.
    Oldest,
    /// [`NEWER`].
    Newer,
}

/// The last long-term kernel, as Debian has it for its stable release; apt here may not know it. Where the archive has
/// dropped it: look in https://packages.debian.org/trixie-backports/linux-image-cloud-amd64 for what came after it.
const NEWER: &str = "linux-image-6.18.15+deb13-cloud-amd64";
const NEWER_AT: &str = "http://deb.debian.org/debian/pool/main/l/linux-signed-amd64/\
    linux-image-6.18.15+deb13-cloud-amd64_6.18.15-1~bpo13+1_amd64.deb";

/// A kernel that is there.
pub struct Kernel {
    pub image: PathBuf,
    pub version: String,
    /// The folder with `lib/modules/VERSION`.
    root: PathBuf,
}

/// The kernel that is wanted, fetched where it is not there.
pub fn get(which: Which) -> Step<Kernel> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "guests are tested on x86_64 only: the kernel's package and QEMU's machine are named for it"
    );
    match which {
        Which::Usual => newest(PREFIX),
        Which::Oldest => newest(OLDEST),
        Which::Newer => opened(NEWER, &package::unpacked_from("newer-kernel", NEWER_AT)?),
    }
}

/// The newest one below `target/guest/` whose package begins so, else the newest that apt has.
fn newest(prefix: &str) -> Step<Kernel> {
    let mut there: Vec<String> = std::fs::read_dir(cache()?)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_kernel(name) && name.starts_with(prefix))
        .collect();
    there.sort_by_key(|name| numbers(name));
    let package = match there.pop() {
        Some(package) => package,
        None => fetch(prefix)?,
    };
    opened(&package, &cache()?.join(&package))
}

/// A package that is unpacked.
fn opened(package: &str, package_root: &Path) -> Step<Kernel> {
    let version = package[PREFIX.len()..].to_owned();
    let root = match package_root.join("lib/modules").exists() {
        true => package_root.to_owned(),
        false => package_root.join("usr"), // where newer packages have them
    };
    if !root
        .join("lib/modules")
        .join(&version)
        .join("modules.dep.bin")
        .exists()
    {
        run("depmod", &["-b", &text(&root), &version])?;
    }
    Ok(Kernel {
        image: package_root.join(format!("boot/vmlinuz-{version}")),
        version,
        root,
    })
}

/// Whether it is a package of one version, and not the one that only points to the newest, or the unsigned one.
fn is_kernel(package: &str) -> bool {
    let version = package.strip_prefix(PREFIX);
    let version = version.and_then(|rest| rest.strip_suffix(SUFFIX));
    version.is_some_and(|version| version.split(['.', '-', '+']).count() >= 3)
}

/// The numbers in a name, so that 6.12.9 comes before 6.12.10.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Brings the newest package here, and opens it.
fn fetch(prefix: &str) -> Step<String> {
    let why = "a guest's kernel is needed, and apt has none";
    let list = || {
        let names = run("apt-cache", &["pkgnames", prefix])?;
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.retain(|name| is_kernel(name));
        names.sort_by_key(|name| numbers(name));
        Step::Ok(names)
    };
    let bring = |names: Vec<String>| match names.last() {
        Some(package) => package::unpacked(package).map(|_| package.clone()),
        None => Err(format!("{why} ({prefix}*{SUFFIX}, as Debian 12 or newer has it)").into()),
    };
    let fetched = bring(list()?);
    fetched.or_else(|first| {
        // The lists may be old, or not there at all.
        package::update().map_err(|why| format!("{first}; then {why}"))?;
        bring(list()?)
    })
}

impl Kernel {
    /// What tells trees of modules apart.
    pub fn modules_print(&self) -> String {
        format!("{} {}", self.version, MODULES.join(" "))
    }

    /// Puts the modules, with what they need, into a guest's tree.
    pub fn put_modules(&self, tree: &Path) -> Step<()> {
        let from = self.root.join("lib/modules").join(&self.version);
        let to = tree.join("lib/modules").join(&self.version);
        std::fs::create_dir_all(&to)?;
        for list in [
            "modules.order",
            "modules.builtin",
            "modules.builtin.modinfo",
        ] {
            std::fs::copy(from.join(list), to.join(list))?;
        }
        for module in MODULES {
            let (root, version) = (text(&self.root), self.version.as_str());
            let asked = ["-d", &root, "-S", version, "--show-depends", module];
            let (code, needed) = attempt("modprobe", &asked)?;
            if code != Some(0) {
                continue; // this kernel is built without it; a guest that loads it says so
            }
            for line in needed.lines() {
                let Some(path) = line.strip_prefix("insmod ") else {
                    continue; // built in
                };
                let path = Path::new(path.trim());
                let inside = path.strip_prefix(&from)?;
                let place = to.join(inside);
                std::fs::create_dir_all(place.parent().ok_or("a module without a folder")?)?;
                std::fs::copy(path, &place)?;
                // busybox's modprobe reads plain modules whatever it was built with.
                if place.extension().is_some_and(|e| e == "xz") {
                    run("xz", &["-d", "-f", &text(&place)])?;
                }
            }
        }
        run("depmod", &["-b", &text(tree), &self.version])?;
        Ok(())
    }
}
