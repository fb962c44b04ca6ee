//! Clients on other hosts: the API under TLS, to who has a certificate or a token of the cluster, as far as his role goes; and who is refused, with the reason on both sides.

use super::several_nodes::{says, start};
use crate::harness::daemon::{Daemon, Said, Start, binary, text};
use crate::harness::tools::attempt;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("the_api_over_tls_gives_each_role_what_is_its", roles),
        Case::new(
            "the_api_over_tls_refuses_strangers_with_a_reason",
            strangers,
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
