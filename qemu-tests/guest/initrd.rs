//! What a guest begins with: busybox, the kernel's modules, an `init`, and programs with the libraries that they need.
//!
//! The kernel takes several cpio archives one after the other for one. So there is one of the base and one of each
//! program, each made once and kept below `target/guest/` until what is in it changes.

use super::cache;
use super::kernel::Kernel;
use crate::harness::daemon::text;
use crate::harness::tools::{attempt, run};
use crate::harness::{Step, ensure};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const INIT: &str = include_str!("init");
/// Archives that nothing has asked for so long are removed.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Writes an initrd: the base, programs (what each is called in the guest, and where it is here), and other files.
pub fn write(
    to: &Path,
    kernel: &Kernel,
    programs: &[(String, PathBuf)],
    files: &[(PathBuf, Vec<u8>)],
) -> Step<()> {
    let mut whole = File::create(to)?;
    let mut add = |archive: &Path| -> Step<()> {
        std::io::copy(&mut File::open(archive)?, &mut whole)?;
        Ok(())
    };
    add(&base(kernel)?)?;
    for (name, program) in programs {
        add(&program_archive(name, program)?)?;
    }
    if !files.is_empty() {
        let tree = to.with_extension("tree");
        for (path, bytes) in files {
            place(&tree, path, bytes)?;
        }
        let archive = to.with_extension("more");
        pack(&tree, &archive)?;
        add(&archive)?;
        std::fs::remove_dir_all(&tree)?;
        std::fs::remove_file(&archive)?;
    }
    whole.flush()?;
    Ok(())
}

/// The same as a tree of files, for an image of a root file system.
pub fn unpack(tree: &Path, kernel: &Kernel, programs: &[(String, PathBuf)]) -> Step<()> {
    std::fs::create_dir_all(tree)?;
    let mut archives = vec![base(kernel)?];
    for (name, program) in programs {
        archives.push(program_archive(name, program)?);
    }
    for archive in archives {
        let script = format!(
            "cd '{}' && cpio -idu --quiet <'{}'",
            text(tree),
            text(&archive)
        );
        run("sh", &["-c", &script])?;
    }
    Ok(())
}

fn base(kernel: &Kernel) -> Step<PathBuf> {
    let busybox = which("busybox")?;
    let mut print = Print::new();
    print.add(INIT.as_bytes());
    print.add(kernel.modules_print().as_bytes());
    print.add_file(&busybox)?;
    kept("base", print, |tree| {
        for folder in ["proc", "sys", "dev", "tmp", "run", "mnt", "root", "newroot"] {
            std::fs::create_dir_all(tree.join(folder))?;
        }
        put_program(tree, "busybox", &busybox)?;
        place(tree, Path::new("init"), INIT.as_bytes())?;
        place(
            tree,
            Path::new("etc/passwd"),
            b"root:x:0:0:root:/root:/bin/sh\n",
        )?;
        place(tree, Path::new("etc/group"), b"root:x:0:\ndisk:x:6:\n")?;
        std::fs::set_permissions(tree.join("init"), PermissionsExt::from_mode(0o755))?;
        kernel.put_modules(tree)
    })
}

fn program_archive(name: &str, program: &Path) -> Step<PathBuf> {
    let mut print = Print::new();
    print.add_file(program)?;
    kept(name, print, |tree| put_program(tree, name, program))
}

/// Where a program is here.
pub fn which(program: &str) -> Step<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let mut places = folders.map(|folder| Path::new(folder).join(program));
    let found = places.find(|place| place.is_file());
    found.ok_or_else(|| format!("{program} is not installed; scripts/test installs it").into())
}

/// Puts a program at /bin, without what only a debugger reads, and the libraries that ldd names where ld.so looks.
fn put_program(tree: &Path, name: &str, program: &Path) -> Step<()> {
    let place = tree.join("bin").join(name);
    std::fs::create_dir_all(tree.join("bin"))?;
    let (from, to) = (text(program), text(&place));
    if attempt("strip", &["-o", &to, &from])?.0 != Some(0) {
        std::fs::copy(program, &place)?; // a script
    }
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o755))?;
    let (code, said) = attempt("ldd", &[&from])?;
    if code != Some(0) {
        return Ok(()); // linked statically, or a script
    }
    ensure!(
        !said.contains("not found"),
        "{from} lacks a library: {said}"
    );
    for library in said.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = tree.join(&library[1..]);
        std::fs::create_dir_all(place.parent().ok_or("a library without a folder")?)?;
        std::fs::copy(library, &place)?;
    }
    Ok(())
}

fn place(tree: &Path, path: &Path, bytes: &[u8]) -> Step<()> {
    let place = tree.join(path.strip_prefix("/").unwrap_or(path));
    std::fs::create_dir_all(place.parent().ok_or("a file without a folder")?)?;
    std::fs::write(place, bytes)?;
    Ok(())
}

/// The archive of this name and print, made by `fill` where it is not there.
fn kept(name: &str, print: Print, fill: impl FnOnce(&Path) -> Step<()>) -> Step<PathBuf> {
    let cache = cache()?;
    let archive = cache.join(format!("{name}-{:016x}.cpio", print.0));
    if let Ok(file) = File::options().append(true).open(&archive) {
        file.set_modified(SystemTime::now())?;
        return Ok(archive);
    }
    let tree = cache.join(format!("new-{name}-{}", std::process::id()));
    let made = archive.with_extension(format!("new-{}", std::process::id()));
    let filled = fill(&tree).and_then(|()| pack(&tree, &made));
    std::fs::remove_dir_all(&tree)?;
    filled?;
    std::fs::rename(&made, &archive)?;
    forget_old(&cache, name)?;
    Ok(archive)
}

fn forget_old(cache: &Path, name: &str) -> Step<()> {
    for entry in std::fs::read_dir(cache)?.flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let of_it = file
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('-'));
        let old = |at: SystemTime| at.elapsed().is_ok_and(|age| age > KEPT);
        if of_it && file.ends_with(".cpio") && entry.metadata()?.modified().is_ok_and(old) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn pack(tree: &Path, archive: &Path) -> Step<()> {
    let script = format!(
        "cd '{}' && find . | cpio -o -H newc -R 0:0 --quiet >'{}'",
        text(tree),
        text(archive)
    );
    run("sh", &["-c", &script]).map(|_| ())
}

/// Tells contents apart.
pub struct Print(pub u64);

impl Print {
    pub fn new() -> Print {
        Print(0x5a75)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        let crc = u64::from(crc32c::crc32c(bytes));
        self.0 = sarsen::base::mix64(self.0 ^ crc << 32 ^ bytes.len() as u64);
    }

    /// By path, length and time, as make does.
    fn add_file(&mut self, path: &Path) -> Step<()> {
        let meta = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
        self.add(format!("{} {} {seconds}.{nanos}", path.display(), meta.len()).as_bytes());
        Ok(())
    }
}
