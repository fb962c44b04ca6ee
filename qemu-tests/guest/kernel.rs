//! The guest's kernel: Debian's cloud kernel, a package from apt, unpacked once below `target/guest/`.
//!
//! Nothing is installed: the package is fetched by `apt-get download` and opened by `dpkg -x`.

use super::cache;
use crate::harness::daemon::text;
use crate::harness::tools::{attempt, run, run_within};
use crate::harness::{Step, ensure};
use std::path::{Path, PathBuf};

/// What a guest may load, by name; what each needs is found by `modprobe --show-depends`.
const MODULES: [&str; 9] = [
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
const SUFFIX: &str = "-cloud-amd64";

/// A kernel that is there.
pub struct Kernel {
    pub image: PathBuf,
    pub version: String,
    /// The folder with `lib/modules/VERSION`.
    root: PathBuf,
}

/// The newest one below `target/guest/`, else the newest that apt has.
pub fn get() -> Step<Kernel> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "guests are tested on x86_64 only: the kernel's package and QEMU's machine are named for it"
    );
    let mut there: Vec<String> = std::fs::read_dir(cache()?)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_kernel(name))
        .collect();
    there.sort_by_key(|name| numbers(name));
    let package = match there.pop() {
        Some(package) => package,
        None => fetch()?,
    };
    let root = cache()?.join(&package);
    let version = package[PREFIX.len()..].to_owned();
    Ok(Kernel {
        image: root.join(format!("boot/vmlinuz-{version}")),
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
fn fetch() -> Step<String> {
    let why = "a guest's kernel is needed, and apt has none";
    let list = || {
        let (_, names) = attempt("apt-cache", &["pkgnames", PREFIX])?;
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.retain(|name| is_kernel(name));
        names.sort_by_key(|name| numbers(name));
        Step::Ok(names)
    };
    let newest = |names: Vec<String>| names.last().cloned();
    let fetched = match newest(list()?) {
        Some(package) => bring(&package).map(|()| package),
        None => Err(why.into()),
    };
    fetched.or_else(|first| {
        // The lists may be old, or not there at all.
        run_within(300, "apt-get", &["update", "-qq"]).map_err(|e| format!("{first}; then {e}"))?;
        let package = newest(list()?).ok_or_else(|| {
            format!("{why} ({PREFIX}*{SUFFIX}, as Debian 12 or newer has it): {first}")
        })?;
        bring(&package)?;
        Ok(package)
    })
}

fn bring(package: &str) -> Step<()> {
    // Beside its place first, so that it is there as a whole or not at all.
    let aside = cache()?.join(format!("new-{}", std::process::id()));
    std::fs::create_dir_all(&aside)?;
    let script = format!(
        "cd '{}' && apt-get download -qq -o APT::Sandbox::User=root {package} && dpkg -x ./*.deb tree && \
         depmod -b tree {}",
        text(&aside),
        &package[PREFIX.len()..]
    );
    let done = run_within(600, "sh", &["-c", &script]);
    let moved = done.and_then(|_| {
        let place = cache()?.join(package);
        let moved = std::fs::rename(aside.join("tree"), &place);
        // Another test may have been faster.
        if place.exists() { Ok(()) } else { Ok(moved?) }
    });
    std::fs::remove_dir_all(&aside)?;
    moved
}

impl Kernel {
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
            for line in run("modprobe", &asked)?.lines() {
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
