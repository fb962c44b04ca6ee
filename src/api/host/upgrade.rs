//! Replacing the daemon's binary. The next one is tried first, in a process of its own that only reads the
//! configuration: where it does not start, or refuses, everything goes on as it was.

use super::{Host, lock};
use crate::api::model::{Checked, ErrorBody, Upgrade, Upgrading};
use crate::frontend::vhost_user::FORM;
use std::fs::Metadata;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the next binary may take to read the configuration.
const CHECK_MAX: Duration = Duration::from_secs(10);
/// What the kernel adds to the path of a running binary that was replaced.
const REPLACED: &str = " (deleted)";
/// The running binary, wherever it lies.
const SELF: &str = "/proc/self/exe";
/// Bytes that are read of what it says.
const SAID_MAX: u64 = 64 << 10;

/// The upgrade that was asked for.
#[derive(Debug, Default)]
pub(super) struct Next {
    binary: std::sync::Mutex<Option<PathBuf>>,
    asked: tokio::sync::Notify,
}

impl Host {
    /// Tries the next binary and has the daemon become it, where it is not only asked. Answered before it does.
    pub async fn upgrade(&self, upgrade: Upgrade) -> Result<Upgrading, ErrorBody> {
        let binary = match upgrade.binary {
            Some(named) => PathBuf::from(named),
            None => installed()?,
        };
        let tried = tokio::task::spawn_blocking(move || try_out(binary));
        let tried = tried.await.map_err(|error| refused(error.to_string()))?;
        let (binary, checked) = tried?;
        // Before the lock: it looks at every placement group.
        let restart = upgrade.dry_run.then(|| self.restart());
        let mut next = lock(&self.inner.next.binary);
        if next.is_some() {
            let hint = "wait until it has ended";
            return Err(ErrorBody::conflict(
                "",
                "another upgrade is under way",
                hint,
            ));
        }
        let answer = Upgrading {
            binary: binary.display().to_string(),
            from_version: env!("CARGO_PKG_VERSION").to_owned(),
            to_version: checked.version,
            hands_over: checked.handover_forms.contains(&FORM),
            restart,
        };
        if upgrade.dry_run {
            return Ok(answer);
        }
        *next = Some(binary);
        self.inner.next.asked.notify_one();
        Ok(answer)
    }

    /// Has the daemon become its own binary once more, which finds on disk what it is from then on.
    pub(super) fn start_again(&self) {
        let mut next = lock(&self.inner.next.binary);
        // Where an upgrade is under way, the next binary finds the same.
        next.get_or_insert_with(|| PathBuf::from(SELF));
        self.inner.next.asked.notify_one();
    }

    /// Waits until the daemon is to become another binary.
    pub async fn next_binary(&self) -> PathBuf {
        loop {
            self.inner.next.asked.notified().await;
            if let Some(binary) = lock(&self.inner.next.binary).clone() {
                return binary;
            }
        }
    }
}

fn refused(why: impl Into<String>) -> ErrorBody {
    let hint = "the running daemon goes on; correct it and try again";
    ErrorBody::conflict("binary", why.into(), hint)
}

/// What lies now where the running binary came from.
fn installed() -> Result<PathBuf, ErrorBody> {
    let path = std::fs::read_link(SELF).map_err(|error| refused(error.to_string()))?;
    let replaced = path.to_str().and_then(|path| path.strip_suffix(REPLACED));
    Ok(replaced.map_or_else(|| path.clone(), PathBuf::from))
}

/// Has a binary read the configuration as it would at its start; it, and what it says.
fn try_out(binary: PathBuf) -> Result<(PathBuf, Checked), ErrorBody> {
    let wrong = |why: &dyn std::fmt::Display| refused(format!("{}: {why}", binary.display()));
    let path = binary.canonicalize().map_err(|error| wrong(&error))?;
    for place in [Some(path.as_path()), path.parent()].into_iter().flatten() {
        let found = place.metadata().map_err(|error| wrong(&error))?;
        if !is_safe(&found) {
            let place = place.display();
            return Err(wrong(&format_args!(
                "others than root and the daemon's user could have put something else there: see the owner and the mode of {place}"
            )));
        }
    }
    let said = ask(&path).map_err(|error| wrong(&error))?;
    let checked: Checked = serde_json::from_str(&said)
        .map_err(|_| wrong(&format_args!("it is no daemon that can take over: {said}")))?;
    Ok((path, checked))
}

/// Whether nobody but root and who runs the daemon can change it. The API's group may ask for an upgrade, and shall not
/// thereby run what it likes.
fn is_safe(found: &Metadata) -> bool {
    let us = std::fs::metadata("/proc/self").map_or(0, |own| own.uid());
    let ours = found.uid() == 0 || found.uid() == us;
    // A folder with the sticky bit lets others add to it, but not replace.
    let shared = found.mode() & 0o022 != 0;
    let sticky = found.is_dir() && found.mode() & 0o1000 != 0;
    ours && (!shared || sticky)
}

/// Runs `BINARY` with the arguments of this process and `--check`; what it prints.
fn ask(binary: &Path) -> std::io::Result<String> {
    // Files rather than pipes: whatever it prints, it does not wait for us.
    let (mut out, mut err) = (scratch()?, scratch()?);
    let mut command = Command::new(binary);
    command.args(std::env::args_os().skip(1)).arg("--check");
    command
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC");
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?);
    let begun = Instant::now();
    let mut child = loop {
        match command.spawn() {
            // Whoever installs it has not closed it yet.
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && begun.elapsed() < CHECK_MAX =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            spawned => break spawned?,
        }
    };
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begun.elapsed() > CHECK_MAX {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other(
                "it does not end when asked for a check",
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = |file: &mut std::fs::File| -> std::io::Result<String> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(SAID_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    match status.success() {
        true => said(&mut out),
        false => {
            let why = format!("its check ended with {status}: {}", said(&mut err)?);
            Err(std::io::Error::other(why))
        }
    }
}

fn scratch() -> std::io::Result<std::fs::File> {
    crate::io::scratch_file("sarsen-check")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_may_write_or_what_is_no_daemon_is_refused() {
        let dir = std::env::temp_dir().join(format!("sarsen-upgrade-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("next");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            try_out(path.clone()).map(|(_, checked)| checked)
        };
        let good = "#!/bin/sh\necho '{\"version\": \"9\", \"handover_forms\": [1]}'\n";
        assert_eq!(write(good, 0o755).unwrap().version, "9");
        for (text, mode, why) in [
            (good, 0o775, "others than root"),
            (good, 0o644, "denied"),
            ("#!/bin/sh\necho hello\n", 0o755, "no daemon"),
            ("#!/bin/sh\necho no >&2; exit 3\n", 0o755, "3: no"),
        ] {
            let refused = write(text, mode).unwrap_err();
            assert!(refused.message.contains(why), "{}", refused.message);
        }
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(try_out(path).is_err());
    }
}
