//! Tells systemd how the service is, by the datagram that `Type=notify` wants. Without NOTIFY_SOCKET in the
//! environment it does nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What a service says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice {
    Ready,
    Stopping,
}

/// Says it. A service manager that does not listen is not an error of ours, but somebody should know.
pub(super) fn say(notice: Notice) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    let text = match notice {
        Notice::Ready => "READY=1\n",
        Notice::Stopping => "STOPPING=1\n",
    };
    if let Err(error) = send(&socket, text.as_bytes()) {
        tracing::warn!(%error, ?socket, "systemd could not be told");
    }
}

fn send(socket: &OsStr, text: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_arrives_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("sarsen-notify-{}", std::process::id()));
        let at_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), b"READY=1\n").unwrap();
        let mut text = [0; 32];
        let len = at_path.recv(&mut text).unwrap();
        assert_eq!(&text[..len], b"READY=1\n");
        std::fs::remove_file(&path).unwrap();

        let name = format!("sarsen-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let at_name = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), b"STOPPING=1\n").unwrap();
        let len = at_name.recv(&mut text).unwrap();
        assert_eq!(&text[..len], b"STOPPING=1\n");
    }
}
