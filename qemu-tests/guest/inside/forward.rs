//! Streams from one kind of socket to another: a unix socket of the host to a TCP port of the guest, and that to a
//! unix socket in it.

use crate::harness::Step;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Takes connections at a TCP address to a unix socket, for ever.
pub fn listen_tcp(address: &str, socket: &Path) -> Step<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (tcp, _) = listener.accept()?;
        tcp.set_nodelay(true)?;
        match UnixStream::connect(socket) {
            Ok(unix) => join(tcp, unix)?,
            Err(error) => println!("{}: {error}", socket.display()),
        }
    }
}

/// Takes connections at a unix socket to a TCP port of this machine, as long as the process lives.
pub fn forward(socket: &Path, port: u16) -> Step<()> {
    let listener = UnixListener::bind(socket)?;
    std::thread::spawn(move || {
        for unix in listener.incoming().flatten() {
            // Where the guest is gone the stream is dropped, which its user sees.
            let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)) else {
                continue;
            };
            if tcp
                .set_nodelay(true)
                .and_then(|()| join(tcp, unix))
                .is_err()
            {
                continue;
            }
        }
    });
    Ok(())
}

/// Carries bytes both ways until both have ended.
fn join(tcp: TcpStream, unix: UnixStream) -> std::io::Result<()> {
    let (tcp_read, unix_read) = (tcp.try_clone()?, unix.try_clone()?);
    std::thread::spawn(move || {
        carry(tcp_read, &unix);
        // It may be closed already.
        let _ = unix.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        carry(unix_read, &tcp);
        let _ = tcp.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// Until either side ends, which is all that there is to know about it here.
fn carry(mut from: impl Read, mut to: impl Write) {
    let mut bytes = vec![0; 128 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}
