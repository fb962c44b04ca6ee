//! Clients on other hosts: the API under TLS, to who has a certificate or a token of the cluster, as far as his role goes; and who is refused, with the reason on both sides.

use super::several_nodes::{says, start};
use crate::harness::daemon::{Daemon, Said, Start, binary, text};
use crate::harness::tools::{attempt, run};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("the_api_over_tls_gives_each_role_what_is_its", roles),
        Case::new(
            "the_api_over_tls_refuses_strangers_with_a_reason",
            strangers,
        ),
        Case::new("nbd_under_tls_serves_the_clients_on_a_volumes_list", nbd),
        Case::new(
            "nbd_under_tls_takes_nothing_that_came_before_it",
            before_tls,
        ),
    ]
}

/// A port that is free now.
pub(super) fn free_port() -> Step<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Adds a line to a section of a daemon's configuration.
pub(super) fn with_line(room: &Room, name: &str, section: &str, line: &str) -> Step<()> {
    let file = room.path(name).join("sarsen.toml");
    let config = std::fs::read_to_string(&file)?;
    let head = format!("[{section}]\n");
    ensure!(config.contains(&head), "no {head} in {config}");
    std::fs::write(&file, config.replace(&head, &format!("{head}{line}\n")))?;
    Ok(())
}

/// A node whose API listens on TCP too, and where.
fn node(room: &Room, name: &str) -> Step<(Start, String)> {
    let (start, port) = (start(room, name)?, free_port()?);
    with_line(room, name, "api", &format!("listen = \"127.0.0.1:{port}\""))?;
    Ok((start, format!("https://127.0.0.1:{port}")))
}

/// Has a certificate made for a client, in a folder of its own.
pub(super) fn client(room: &Room, of: &Daemon, name: &str, role: &str) -> Step<String> {
    let folder = text(&room.path(&format!("tls-{name}")));
    of.tell(&["cluster", "client", name, "--role", role, "--out", &folder])?;
    Ok(folder)
}

fn token(of: &Daemon, name: &str, role: &str, expires: &str) -> Step<String> {
    let line = [
        "cluster",
        "api-token",
        name,
        "--role",
        role,
        "--expires",
        expires,
    ];
    let said = of.tell(&line)?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Runs `sarsen` as somebody on another host.
fn from_afar(at: &str, shown: Shown<'_>, arguments: &[&str]) -> Step<Said> {
    let mut command = Command::new(binary());
    command.env_remove("SARSEN_API_TOKEN").args(["--api", at]);
    match shown {
        Shown::Certificate(folder) => command.args(["--tls", folder]),
        Shown::Token(token) => command.env("SARSEN_API_TOKEN", token),
    };
    let output = command.args(arguments).output()?;
    Ok(Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[derive(Clone, Copy)]
enum Shown<'a> {
    Certificate(&'a str),
    Token(&'a str),
}

fn does(said: &Said, words: &[&str]) -> Step<()> {
    let all = words.iter().all(|word| said.out.contains(word));
    let (out, err) = (&said.out, &said.err);
    ensure!(
        said.code == Some(0) && all,
        "exit {:?}, without {words:?}: {out}{err}",
        said.code
    );
    Ok(())
}

fn does_not(said: &Said, words: &[&str]) -> Step<()> {
    let all = words.iter().all(|word| said.err.contains(word));
    let (out, err) = (&said.out, &said.err);
    let failed = said.code.is_some_and(|code| code != 0);
    ensure!(
        failed && all,
        "exit {:?}, without {words:?}: {out}{err}",
        said.code
    );
    Ok(())
}

fn roles(room: &Room) -> Outcome {
    let (start, at) = node(room, "a")?;
    let a = start.run()?;
    let alone = a.ask(&["cluster", "client", "x", "--out", &text(&room.path("x"))])?;
    does_not(&alone, &["in no cluster", "sarsen cluster init"])?;
    ensure!(
        start.log_text()?.contains("api.listen is served when"),
        "it does not say when it listens"
    );
    a.tell(&["cluster", "init"])?;
    super::several_nodes::add_disk(&a, &room.path("disk"))?;

    let (reader, operator) = (
        client(room, &a, "rita", "reader")?,
        client(room, &a, "otto", "operator")?,
    );
    let admin = client(room, &a, "ada", "admin")?;
    let [reader, operator, admin] = [&reader, &operator, &admin].map(|one| Shown::Certificate(one));
    let create = ["volume", "create", "v", "--size", "16M"];
    does(&from_afar(&at, reader, &["status"])?, &["this node"])?;
    does_not(
        &from_afar(&at, reader, &create)?,
        &["needs the role operator", "rita is reader"],
    )?;
    does_not(
        &from_afar(&at, reader, &["volume", "export", "v", "-"])?,
        &["v"],
    )?;
    does(&from_afar(&at, operator, &create)?, &["v"])?;
    does(&from_afar(&at, reader, &["volume", "list"])?, &["v"])?;
    does_not(
        &from_afar(&at, reader, &["volume", "export", "v", "-"])?,
        &["needs the role operator"],
    )?;
    let disk = text(&room.path("other"));
    for refused in [
        &["volume", "delete", "v"][..],
        &["disk", "add", &disk, "--size", "128M"],
        &["cluster", "token"],
        &["cluster", "api-token", "otto", "--role", "admin"],
        &["cluster", "revoke", "ada"],
        &["pool", "set", "default", "--overcommit", "200"],
        &["upgrade"],
    ] {
        let said = from_afar(&at, operator, refused)?;
        does_not(&said, &["needs the role admin", "otto is operator"])?;
    }
    does(&from_afar(&at, admin, &["volume", "delete", "v"])?, &[])?;
    // Only the lesser of what is shown and what the name has counts, and tokens are the same.
    let tokens = [
        token(&a, "bot", "reader", "1h")?,
        token(&a, "bot", "operator", "1h")?,
    ];
    does(
        &from_afar(&at, Shown::Token(&tokens[0]), &["status"])?,
        &["this node"],
    )?;
    does_not(
        &from_afar(&at, Shown::Token(&tokens[0]), &create)?,
        &["needs the role operator"],
    )?;
    does(&from_afar(&at, Shown::Token(&tokens[1]), &create)?, &["v"])?;
    says(&a, &["cluster", "clients"], &["rita", "operator", "bot"])?;

    // Others' programs.
    let ca = text(&room.path("tls-rita").join("ca-cert.pem"));
    let (cert, key) = (
        ca.replace("ca-", "client-"),
        ca.replace("ca-cert", "client-key"),
    );
    let status = format!("{at}/v1/status");
    let shows = [
        "-sS", "--cacert", &ca, "--cert", &cert, "--key", &key, &status,
    ];
    let (code, said) = attempt("curl", &shows)?;
    ensure!(code == Some(0) && said.contains("\"instance\""), "{said}");
    let bearer = format!("authorization: Bearer {}", tokens[0]);
    let (code, said) = attempt("curl", &["-sS", "--cacert", &ca, "-H", &bearer, &status])?;
    ensure!(code == Some(0) && said.contains("\"instance\""), "{said}");

    // It stays so over a restart, and an upgrade.
    a.upgrade(None)?;
    does(&from_afar(&at, reader, &["status"])?, &["this node"])?;
    // What is revoked counts no more, and its name is not given again.
    a.tell(&["cluster", "revoke", "rita"])?;
    does_not(
        &from_afar(&at, reader, &["status"])?,
        &["\"rita\" was revoked"],
    )?;
    let again = text(&room.path("again"));
    does_not(
        &a.ask(&["cluster", "client", "rita", "--out", &again])?,
        &["was revoked", "another name"],
    )?;
    Ok(String::new())
}

fn strangers(room: &Room) -> Outcome {
    let lone = Start::daemon(room, "lone", &[], "node = \"lone\"\nmemory = \"64M\"\n")?;
    with_line(room, "lone", "api", "listen = \"127.0.0.1:7401\"")?;
    let (code, said) = lone.run_refused()?;
    ensure!(
        code != Some(0) && said.contains("api.listen") && said.contains("sarsen cluster init"),
        "{said}"
    );
    let (start, at) = node(room, "a")?;
    let a = start.run()?;
    a.tell(&["cluster", "init"])?;
    let status = format!("{at}/v1/status");
    let admin = client(room, &a, "ada", "admin")?;
    let ca = format!("{admin}/ca-cert.pem");

    // Nobody.
    let (code, said) = attempt("curl", &["-sS", "-i", "--cacert", &ca, &status])?;
    ensure!(
        code == Some(0)
            && said.contains("401")
            && said.contains("neither a certificate nor a token"),
        "{said}"
    );
    let odd = "authorization: Basic YTpi";
    let (_, said) = attempt("curl", &["-sS", "-i", "--cacert", &ca, "-H", odd, &status])?;
    ensure!(
        said.contains("401") && said.contains("Bearer TOKEN"),
        "{said}"
    );
    // In the clear, and an older TLS.
    let (code, said) = attempt("curl", &["-sS", &status.replace("https", "http")])?;
    ensure!(code != Some(0) || !said.contains("instance"), "{said}");
    let (code, said) = attempt(
        "curl",
        &["-sS", "--tls-max", "1.2", "--cacert", &ca, &status],
    )?;
    ensure!(code != Some(0), "{said}");
    // A node's certificate is none of a client's.
    let node = text(&room.path("a").join("cluster/node.pem"));
    let (_, said) = attempt(
        "curl",
        &["-sS", "-i", "--cacert", &ca, "--cert", &node, &status],
    )?;
    ensure!(
        said.contains("401") && said.contains("is a node's"),
        "{said}"
    );

    // Of another cluster: refused by whoever looks first, with both names.
    let (other, _) = self::node(room, "x")?;
    let x = other.run()?;
    x.tell(&["cluster", "init"])?;
    let foreign = client(room, &x, "eve", "admin")?;
    let said = from_afar(&at, Shown::Certificate(&foreign), &["status"])?;
    does_not(&said, &["the certificate is of cluster"])?;
    let foreign_token = token(&x, "eve", "admin", "1h")?;
    let said = from_afar(&at, Shown::Token(&foreign_token), &["status"])?;
    does_not(&said, &["authority is not the one"])?;
    let (cert, key) = (
        format!("{foreign}/client-cert.pem"),
        format!("{foreign}/client-key.pem"),
    );
    let shows = [
        "-sS", "--cacert", &ca, "--cert", &cert, "--key", &key, &status,
    ];
    let (code, said) = attempt("curl", &shows)?;
    ensure!(code != Some(0), "{said}");
    let bearer = format!("authorization: Bearer {foreign_token}");
    let (_, said) = attempt(
        "curl",
        &["-sS", "-i", "--cacert", &ca, "-H", &bearer, &status],
    )?;
    ensure!(
        said.contains("401") && said.contains("is of cluster"),
        "{said}"
    );

    // Tokens: ended, changed, and for something else.
    let short = token(&a, "short", "admin", "1s")?;
    let join = a.tell(&["cluster", "token"])?;
    let join = join.lines().next().unwrap_or_default();
    std::thread::sleep(Duration::from_millis(2_100));
    does_not(
        &from_afar(&at, Shown::Token(&short), &["status"])?,
        &["the token ended at"],
    )?;
    does_not(
        &from_afar(&at, Shown::Token(join), &["status"])?,
        &["not for the API"],
    )?;
    does_not(
        &from_afar(&at, Shown::Token("sarsen1.x"), &["status"])?,
        &["not a whole token"],
    )?;
    let nothing = text(Path::new("/nonexistent"));
    does_not(
        &from_afar(&at, Shown::Certificate(&nothing), &["status"])?,
        &["ca-cert.pem"],
    )?;

    let log = start.log_text()?;
    for reason in [
        "the certificate is of cluster",
        "the token ended at",
        "neither a certificate",
    ] {
        ensure!(log.contains(reason), "its log has not {reason:?}: {log}");
    }
    Ok(String::new())
}

/// The credentials and the image, as QEMU's tools take them, of a volume under TLS.
fn qemu_opens(port: u16, volume: &str, folder: &str) -> (String, String) {
    (
        format!("tls-creds-x509,id=t,endpoint=client,dir={folder}"),
        format!("driver=nbd,host=127.0.0.1,port={port},export={volume},tls-creds=t"),
    )
}

/// What QEMU, which tells what a server says, is told of a volume.
fn qemu_is_told(port: u16, volume: &str, folder: &str) -> Step<(Option<i32>, String)> {
    let (object, image) = qemu_opens(port, volume, folder);
    attempt(
        "qemu-img",
        &["info", "--object", &object, "--image-opts", &image],
    )
}

/// QEMU that keeps one connection, and reads when it is told to. (fio takes no certificates: libnbd refuses those named in a URI unless a program
/// allows them.)
struct Reader(Child, ChildStdin, ChildStdout);

impl Reader {
    fn new(object: &str, image: &str) -> Step<Reader> {
        let mut qemu = Command::new("qemu-io");
        qemu.args(["--object", object, "--image-opts", image]);
        let mut qemu = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (qemu.stdin.take(), qemu.stdout.take());
        let mut reader = Reader(qemu, stdin.ok_or("no stdin")?, stdout.ok_or("no stdout")?);
        reader.answer()?;
        Ok(reader)
    }

    /// Whether a read succeeds.
    fn reads(&mut self) -> Step<bool> {
        self.1.write_all(b"read 0 4k\n")?;
        let said = self.answer()?;
        let failed = said.contains("read failed");
        ensure!(failed || said.contains("read 4096/4096"), "qemu-io: {said}");
        Ok(!failed)
    }

    /// What it says before it asks for the next command.
    fn answer(&mut self) -> Step<String> {
        let mut said = Vec::new();
        while !said.ends_with(b"qemu-io> ") {
            let mut some = [0; 4096];
            let got = self.2.read(&mut some)?;
            ensure!(got > 0, "qemu-io ended: {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&some[..got]);
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Ended already, it has nothing left to be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that serves NBD under TLS on loopback, in a cluster and with a disk; its port.
fn nbd_node(room: &Room) -> Step<(Daemon, Start, u16)> {
    let (start, port) = (start(room, "a")?, free_port()?);
    let lines = format!("listen = \"127.0.0.1:{port}\"\ntls = true");
    with_line(room, "a", "nbd", &lines)?;
    let a = start.run()?;
    a.tell(&["cluster", "init"])?;
    super::several_nodes::add_disk(&a, &room.path("disk"))?;
    Ok((a, start, port))
}

fn nbd(room: &Room) -> Outcome {
    let (a, start, port) = nbd_node(room)?;
    a.create("v", "16M")?;
    a.create("hidden", "16M")?;
    let (alice, bob) = (
        client(room, &a, "alice", "reader")?,
        client(room, &a, "bob", "admin")?,
    );
    let uri = |volume: &str, folder: &str| {
        format!("nbds://127.0.0.1:{port}/{volume}?tls-certificates={folder}")
    };
    // Nobody is on a new volume's list.
    let (code, said) = attempt("nbdinfo", &[&uri("v", &alice)])?;
    ensure!(code != Some(0), "alice is served: {said}");
    a.tell(&["volume", "set", "v", "--clients", "alice,carol"])?;
    says(&a, &["volume", "show", "v"], &["alice, carol"])?;
    let said = run("nbdinfo", &[&uri("v", &alice)])?;
    ensure!(said.contains("16777216") && said.contains("TLS"), "{said}");
    let said = run("nbdinfo", &["--list", &uri("", &alice)])?;
    ensure!(said.contains("\"v\"") && !said.contains("hidden"), "{said}");
    let (code, said) = qemu_is_told(port, "v", &bob)?;
    ensure!(
        code != Some(0) && said.contains("not on the volume's list"),
        "{said}"
    );

    // Data there and back, by two clients' programs.
    let (image, back) = (room.path("image"), room.path("back"));
    let bytes: Vec<u8> = (0..16u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(&image, &bytes)?;
    run("nbdcopy", &[&text(&image), &uri("v", &alice)])?;
    run("nbdcopy", &[&uri("v", &alice), &text(&back)])?;
    ensure!(std::fs::read(&back)? == bytes, "other bytes came back");
    let object = format!("tls-creds-x509,id=t,endpoint=client,dir={alice}");
    let from = format!("driver=nbd,host=127.0.0.1,port={port},export=v,tls-creds=t");
    let qemu_back = text(&room.path("qemu-back"));
    run(
        "qemu-img",
        &[
            "convert",
            "--object",
            &object,
            "--image-opts",
            &from,
            "-O",
            "raw",
            &qemu_back,
        ],
    )?;
    ensure!(
        std::fs::read(&qemu_back)? == bytes,
        "other bytes came back to QEMU"
    );

    // In the clear nothing is told.
    let clear = format!("nbd://127.0.0.1:{port}/v");
    let (code, said) = attempt("nbdinfo", &[&clear])?;
    ensure!(code != Some(0), "{said}");
    // Another cluster's client.
    let x = super::several_nodes::start(room, "x")?.run()?;
    x.tell(&["cluster", "init"])?;
    let foreign = client(room, &x, "mallory", "admin")?;
    let (code, said) = attempt("nbdinfo", &[&uri("v", &foreign)])?;
    ensure!(code != Some(0), "{said}");
    // The same with this cluster's authority, so that it is the server who refuses.
    let mixed = room.path("mixed");
    std::fs::create_dir(&mixed)?;
    for (file, from) in [
        ("ca-cert.pem", &alice),
        ("client-cert.pem", &foreign),
        ("client-key.pem", &foreign),
    ] {
        std::fs::copy(Path::new(from).join(file), mixed.join(file))?;
    }
    let (code, said) = attempt("nbdinfo", &[&uri("v", &text(&mixed))])?;
    ensure!(code != Some(0), "{said}");
    let log = start.log_text()?;
    ensure!(log.contains("the certificate is of cluster"), "{log}");

    // Who is taken off the list, or revoked, is out.
    a.tell(&["volume", "set", "v", "--clients", "any"])?;
    run("nbdinfo", &[&uri("v", &bob)])?;
    let (object, image) = qemu_opens(port, "v", &bob);
    let bob_is_there = RefCell::new(Reader::new(&object, &image)?);
    ensure!(bob_is_there.borrow_mut().reads()?, "bob does not read");
    a.tell(&["cluster", "revoke", "bob"])?;
    super::several_nodes::until("bob is cut off", || {
        let goes_on = bob_is_there.borrow_mut().reads()?;
        Ok(goes_on.then(|| "he reads on".to_owned()))
    })?;
    let (code, said) = qemu_is_told(port, "v", &bob)?;
    ensure!(code != Some(0) && said.contains("was revoked"), "{said}");
    a.tell(&["volume", "set", "v", "--clients", "none"])?;
    let (code, said) = qemu_is_told(port, "v", &alice)?;
    ensure!(
        code != Some(0) && said.contains("not on the volume's list"),
        "{said}"
    );
    // The socket of the host knows no lists.
    run("nbdinfo", &[&a.uri("v")])?;
    let log = start.log_text()?;
    for reason in ["not on the volume's list", "was revoked"] {
        ensure!(log.contains(reason), "its log has not {reason:?}: {log}");
    }
    // They come again after an upgrade.
    a.tell(&["volume", "set", "v", "--clients", "alice"])?;
    a.upgrade(None)?;
    run("nbdinfo", &[&uri("v", &alice)])?;
    Ok(String::new())
}

fn option(kind: u32) -> Vec<u8> {
    [b"IHAVEOPT".as_slice(), &kind.to_be_bytes(), &[0; 4]].concat()
}

fn before_tls(room: &Room) -> Outcome {
    let (a, start, port) = nbd_node(room)?;
    a.create("v", "16M")?;
    let connect = || -> Step<TcpStream> {
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut greeting = [0; 18];
        socket.read_exact(&mut greeting)?;
        ensure!(greeting.starts_with(b"NBDMAGICIHAVEOPT"), "{greeting:?}");
        socket.write_all(&[0, 0, 0, 3])?;
        Ok(socket)
    };
    // LIST, in the clear: TLS is required, and no name is told.
    let mut socket = connect()?;
    socket.write_all(&option(3))?;
    let mut head = [0; 20];
    socket.read_exact(&mut head)?;
    ensure!(
        head[12..16] == [0x80, 0, 0, 5],
        "not NBD_REP_ERR_TLS_REQD: {head:?}"
    );

    // Behind STARTTLS, in one piece: LIST in the clear. It is no option, and no TLS either.
    let mut socket = connect()?;
    socket.write_all(&[option(5), option(3)].concat())?;
    let mut answer = Vec::new();
    // How it ends is the kernel's: there are unread bytes.
    let _ = socket.read_to_end(&mut answer);
    ensure!(
        answer.len() >= 20 && answer[12..16] == [0, 0, 0, 1],
        "STARTTLS: {answer:?}"
    );
    let rest = &answer[20..];
    ensure!(
        !rest.windows(4).any(|word| word == [0, 3, 0xe8, 0x89]),
        "something in the clear was answered behind STARTTLS: {rest:?}"
    );
    super::several_nodes::until("the log says so", || {
        let log = start.log_text()?;
        Ok((!log.contains("what came is not TLS")).then_some(log))
    })?;
    // It serves on.
    let alice = client(room, &a, "alice", "reader")?;
    a.tell(&["volume", "set", "v", "--clients", "alice"])?;
    let uri = format!("nbds://127.0.0.1:{port}/v?tls-certificates={alice}");
    run("nbdinfo", &[&uri])?;
    Ok(String::new())
}
