//! Three real daemons with one manager: founded, joined, killed, stopped, and what is refused.
//!
//! The daemons run on this host and speak over 127.0.0.1, at ports that the system chooses. What is not there at once is waited for.

use crate::harness::daemon::{Daemon, Said, Start, binary};
use crate::harness::network::Network;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take that comes by itself: a machine may be ten times slower than this needs.
pub(super) const COMES: Duration = Duration::from_secs(90);

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("three_daemons_join_with_tokens_and_see_one_catalog", join),
        Case::new(
            "a_join_is_refused_with_the_reason_and_changes_nothing",
            refused,
        ),
        Case::new("the_leader_is_killed_and_the_others_go_on", leader_killed),
        Case::new("all_nodes_are_killed_and_find_the_same_catalog", all_killed),
        Case::new("a_stopped_node_is_told_of_and_catches_up", stopped),
        Case::new(
            "members_are_set_by_hand_and_a_dead_one_is_replaced",
            members_set,
        ),
    ]
}

/// How a node is started: with a port for others that the system chooses.
pub(super) fn start(room: &Room, name: &str) -> Step<Start> {
    node(room, name, "[cluster]\nlisten = \"127.0.0.1:0\"\n")
}

pub(super) fn node(room: &Room, name: &str, cluster: &str) -> Step<Start> {
    let more = format!("node = {name:?}\nmemory = \"64M\"\n{cluster}");
    Start::daemon(room, name, &[], &more)
}

/// A new token of a node's.
pub(super) fn token(of: &Daemon, expires: &str) -> Step<(String, String)> {
    let text = of.tell(&["--json", "cluster", "token", "--expires", expires])?;
    let field = |name: &str| -> Step<String> {
        let from = text
            .split_once(&format!("\"{name}\": \""))
            .ok_or(format!("no {name}: {text}"))?;
        Ok(from.1.split('"').next().unwrap_or_default().to_owned())
    };
    Ok((field("address")?, field("token")?))
}

pub(super) fn join_to(joiner: &Daemon, member: &Daemon) -> Step<String> {
    let (address, token) = token(member, "1h")?;
    joiner.tell(&["join", &address, "--token", &token])
}

/// Waits until `holds` says nothing more against it.
pub(super) fn until(what: &str, holds: impl Fn() -> Step<Option<String>>) -> Step<()> {
    let begun = Instant::now();
    loop {
        let Some(why) = holds()? else { return Ok(()) };
        ensure!(
            begun.elapsed() < COMES,
            "{what}: not after {COMES:?}: {why}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until what a node says to `arguments` has all of these.
pub(super) fn says(node: &Daemon, arguments: &[&str], wanted: &[&str]) -> Step<()> {
    let what = format!("sarsen {} says {wanted:?}", arguments.join(" "));
    until(&what, || {
        let Said { out, err, .. } = node.ask(arguments)?;
        let all = wanted.iter().all(|one| out.contains(one));
        Ok((!all).then(|| format!("{out}{err}")))
    })
}

/// What `sarsen cluster members` has of each node: its row.
fn rows(node: &Daemon) -> Step<Vec<String>> {
    let said = node.ask(&["cluster", "members"])?;
    Ok(said.out.lines().skip(1).map(str::to_owned).collect())
}

/// Who leads as a node sees it, by name.
fn leader_seen_by(node: &Daemon) -> Step<Option<String>> {
    let leads = rows(node)?
        .into_iter()
        .find(|row| row.contains("member, leads"));
    Ok(leads.and_then(|row| row.split_whitespace().nth(1).map(str::to_owned)))
}

/// Waits until these nodes say the same leader, and that there are so many members who answer; its name.
pub(super) fn settled(nodes: &[&Daemon], members: usize) -> Step<String> {
    let seen = std::cell::RefCell::new(String::new());
    until("the nodes agree on a leader", || {
        let mut leaders = Vec::new();
        for node in nodes {
            let is_member = |row: &&String| row.contains("member") && !row.contains("unreachable");
            let count = rows(node)?.iter().filter(is_member).count();
            leaders.push((leader_seen_by(node)?, count));
        }
        let agree = leaders
            .iter()
            .all(|one| one.0.is_some() && *one == (leaders[0].0.clone(), members));
        *seen.borrow_mut() = leaders[0].0.clone().unwrap_or_default();
        Ok((!agree).then(|| format!("{leaders:?}")))
    })?;
    Ok(seen.into_inner())
}

/// Three nodes that are all members.
pub(super) fn three(room: &Room) -> Step<[Daemon; 3]> {
    three_with(room, &binary())
}

/// The same with another binary.
pub(super) fn three_with(room: &Room, binary: &Path) -> Step<[Daemon; 3]> {
    let start = |name| start(room, name)?.with_binary(binary.into()).run();
    together([start("a")?, start("b")?, start("c")?])
}

/// The same on hosts with a network of their own.
pub(super) fn three_hosts(room: &Room, network: &Network) -> Step<[Daemon; 3]> {
    let start = |name, host| {
        let address = Network::address(host);
        let cluster = format!("[cluster]\nlisten = \"{address}:7400\"\n");
        let start = node(room, name, &cluster)?;
        start.in_network(network.namespace(host)).run()
    };
    together([start("a", 0)?, start("b", 1)?, start("c", 2)?])
}

/// Makes a cluster of three nodes.
fn together([a, b, c]: [Daemon; 3]) -> Step<[Daemon; 3]> {
    a.tell(&["cluster", "init"])?;
    join_to(&b, &a)?;
    join_to(&c, &a)?;
    settled(&[&a, &b, &c], 3)?;
    Ok([a, b, c])
}

pub(super) fn add_disk(to: &Daemon, path: &Path) -> Step<()> {
    to.tell(&["disk", "add", &path.to_string_lossy(), "--size", "128M"])?;
    Ok(())
}

/// A disk that has its size.
pub(super) fn add_whole_disk(to: &Daemon, path: &Path) -> Step<()> {
    to.tell(&["disk", "add", &path.to_string_lossy()])?;
    Ok(())
}

/// Waits until each of these lists the volume.
fn listed(by: &[&Daemon], volume: &str) -> Step<()> {
    for daemon in by {
        until(&format!("{volume} is listed"), || {
            let said = daemon.tell(&["volume", "list"])?;
            let is_there = said
                .lines()
                .any(|line| line.starts_with(&format!("{volume} ")));
            Ok((!is_there).then_some(said))
        })?;
    }
    Ok(())
}

pub(super) fn refuses(said: &Said, words: &[&str]) -> Step<()> {
    let text = format!("{}{}", said.out, said.err);
    let all = words.iter().all(|word| text.contains(word));
    ensure!(
        said.code == Some(1) && all,
        "exit {:?}, without {words:?}: {text}",
        said.code
    );
    Ok(())
}

fn join(room: &Room) -> Outcome {
    let a = start(room, "a")?.run()?;
    let said = a.ask(&["cluster", "members"])?;
    refuses(&said, &["in no cluster", "sarsen cluster init"])?;
    a.tell(&["cluster", "init"])?;
    let again = a.tell(&["cluster", "init"])?;
    ensure!(
        again.contains("already") && again.contains("nothing has changed"),
        "{again}"
    );
    let secret = room.path("a").join("cluster/authority.pem");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&secret)?.permissions());
    ensure!(
        mode & 0o777 == 0o600,
        "{} has mode {mode:o}",
        secret.display()
    );
    let printed = a.tell(&["cluster", "token", "--expires", "1h"])?;
    ensure!(printed.contains("sarsen join 127.0.0.1:"), "{printed}");

    let (b, c) = (start(room, "b")?.run()?, start(room, "c")?.run()?);
    join_to(&b, &a)?;
    // Two nodes have one member: two would be no better than one.
    says(&b, &["cluster", "members"], &["member, leads", "follower"])?;
    // What is refused changes nothing: the third makes them three all the same.
    let two = a.ask(&["cluster", "members", "set", "a", "b"])?;
    refuses(&two, &["1, 3 or 5"])?;
    add_disk(&b, &room.path("disk-b"))?;
    b.create("vol-b", "16M")?;
    listed(&[&a, &b], "vol-b")?;
    join_to(&c, &a)?;
    let leader = settled(&[&a, &b, &c], 3)?;
    listed(&[&c], "vol-b")?;
    says(&c, &["disk", "list"], &["elsewhere", "disk-b"])?;
    says(
        &a,
        &["status"],
        &["this node", "leader", &leader, "3, 3 of them members"],
    )?;

    // A disk is its own node's to look after; a volume comes to where it is used.
    refuses(
        &c.ask(&["disk", "scrub", "1"])?,
        &["node b", "say it on that node"],
    )?;
    drop(c.connect("vol-b")?);
    add_disk(&c, &room.path("disk-c"))?;
    c.create("vol-c", "16M")?;
    listed(&[&a, &b, &c], "vol-c")?;
    b.connect("vol-b")?;
    c.connect("vol-c")?;
    // Any member lets others in, once it has the authority.
    until("b makes a token", || {
        let said = b.ask(&["cluster", "token"])?;
        Ok((said.code != Some(0)).then_some(said.err))
    })?;
    let d = start(room, "d")?.run()?;
    join_to(&d, &b)?;
    listed(&[&d], "vol-c")?;
    says(&d, &["cluster", "members"], &["follower", "member, leads"])?;
    says(&a, &["cluster", "members"], &["follower"])?;
    Ok(format!("{leader} leads"))
}

fn refused(room: &Room) -> Outcome {
    let a = start(room, "a")?.run()?;
    a.tell(&["cluster", "init"])?;
    let (address, good) = token(&a, "1h")?;
    let b = start(room, "b")?.run()?;
    let join = |node: &Daemon, at: &str, token: &str| node.ask(&["join", at, "--token", token]);

    let cut = &good[..good.len() - 8];
    refuses(&join(&b, &address, cut)?, &["not a whole token"])?;
    refuses(&join(&b, &address, "sarsen2.x")?, &["not a whole token"])?;
    // Another cluster's.
    let x = start(room, "x")?.run()?;
    x.tell(&["cluster", "init"])?;
    let (elsewhere, foreign) = token(&x, "1h")?;
    refuses(&join(&x, &address, &good)?, &["already"])?;
    // Of x, but no address that answers as x.
    let (_, gone) = token(&x, "1h")?;
    drop(x);
    let silent = join(&b, &elsewhere, &gone)?;
    refuses(
        &silent,
        &["no member of the cluster could be asked", &elsewhere],
    )?;
    let wrong = join(&b, &address, &foreign)?;
    refuses(&wrong, &["no member of the cluster could be asked"])?;

    // A name that is taken.
    let twin = node(room, "twin", "[cluster]\nlisten = \"127.0.0.1:0\"\n")?;
    let config = room.path("twin").join("sarsen.toml");
    let text = std::fs::read_to_string(&config)?.replace("node = \"twin\"", "node = \"a\"");
    std::fs::write(&config, text)?;
    let twin = twin.run()?;
    refuses(
        &join(&twin, &address, &good)?,
        &["refused", "a node named \"a\" already"],
    )?;
    drop(twin);

    // What has something of its own, or is not told where to listen.
    let (_, other) = token(&a, "1h")?;
    let full = Start::daemon(
        room,
        "full",
        &[(&room.path("disk-full"), Some("128M"))],
        "[cluster]\nlisten = \"127.0.0.1:0\"\n",
    )?;
    let full = full.run()?;
    refuses(
        &join(&full, &address, &other)?,
        &["1 disk(s) of its own", "disk-full"],
    )?;
    full.create("v", "16M")?;
    refuses(
        &join(&full, &address, &other)?,
        &["1 volume(s) of its own: v"],
    )?;
    let bare = node(room, "bare", "")?.run()?;
    refuses(&join(&bare, &address, &other)?, &["[cluster]", "listen"])?;
    refuses(&bare.ask(&["cluster", "init"])?, &["[cluster]", "listen"])?;

    // After all that it is alone as it was, and joins; and its token is good for nobody else.
    refuses(&b.ask(&["cluster", "members"])?, &["in no cluster"])?;
    b.tell(&["join", &address, "--token", &other])?;
    let c = start(room, "c")?.run()?;
    refuses(&join(&c, &address, &other)?, &["used already"])?;
    refuses(&join(&b, &address, &good)?, &["already"])?;
    let least = a.ask(&["cluster", "token", "--expires", "1s"])?;
    refuses(&least, &["from a minute to 90 days"])?;
    says(&a, &["cluster", "members"], &["follower"])?;

    // A configuration that forgets the cluster does not start as a node alone.
    let mut b = b;
    b.stop()?;
    let forgets = room.path("b").join("sarsen.toml");
    let text = std::fs::read_to_string(&forgets)?;
    std::fs::write(
        &forgets,
        text.replace("[cluster]\nlisten = \"127.0.0.1:0\"\n", ""),
    )?;
    let (code, said) = b.start.run_refused()?;
    ensure!(
        code == Some(1) && said.contains("no section [cluster]"),
        "{code:?}: {said}"
    );
    ensure!(said.contains("sarsen.toml"), "{said}");
    Ok(String::new())
}

fn leader_killed(room: &Room) -> Outcome {
    let [a, b, c] = three(room)?;
    let name = settled(&[&a, &b, &c], 3)?;
    let mut nodes = vec![("a", a), ("b", b), ("c", c)];
    let at = nodes
        .iter()
        .position(|(of, _)| *of == name)
        .ok_or("nobody of them leads")?;
    let (old, mut leader) = nodes.remove(at);
    leader.kill()?;
    let begun = Instant::now();
    let others: Vec<&Daemon> = nodes.iter().map(|(_, node)| node).collect();
    let next = settled(&others, 2)?;
    let took = begun.elapsed();
    ensure!(next != old, "a dead node leads");
    // Changes are taken on each of those that live, whoever leads.
    for (name, node) in &nodes {
        add_disk(node, &room.path(&format!("disk-{name}")))?;
        node.create(&format!("vol-{name}"), "16M")?;
    }
    for (name, _) in &nodes {
        listed(&others, &format!("vol-{name}"))?;
    }
    says(others[0], &["status"], &["unreachable", old])?;
    says(
        others[0],
        &["alerts"],
        &["node-unreachable", &format!("node {old}")],
    )?;

    let back = leader.start.run()?;
    for (name, _) in &nodes {
        listed(&[&back], &format!("vol-{name}"))?;
    }
    settled(&[others[0], others[1], &back], 3)?;
    until("the alert is over", || {
        let said = others[0].tell(&["alerts"])?;
        Ok(said.contains("node-unreachable").then_some(said))
    })?;
    add_disk(&back, &room.path("disk-old"))?;
    back.create("vol-old", "16M")?;
    listed(&others, "vol-old")?;
    Ok(format!("{next} led after {took:.1?}"))
}

fn all_killed(room: &Room) -> Outcome {
    let mut nodes = three(room)?;
    add_disk(&nodes[1], &room.path("disk-b"))?;
    nodes[1].create("vol-b", "16M")?;
    nodes.iter().try_for_each(|node| listed(&[node], "vol-b"))?;
    for node in &mut nodes {
        node.kill()?;
    }
    let starts = nodes.map(|node| node.start.clone());
    // One alone has no majority, and says so. What of its log counts it cannot know, so it serves nothing yet.
    let b = starts[1].run()?;
    says(&b, &["alerts"], &["no-leader"])?;
    ensure!(
        b.connect("vol-b").is_err(),
        "a member serves what it cannot know"
    );
    let no = b.ask(&["volume", "create", "no", "--size", "16M"])?;
    ensure!(
        no.code == Some(1),
        "one of three members took a change: {}",
        no.out
    );
    let (a, c) = (starts[0].run()?, starts[2].run()?);
    settled(&[&a, &b, &c], 3)?;
    listed(&[&a, &b, &c], "vol-b")?;
    until("b opens its disk when it hears the others", || {
        Ok(b.connect("vol-b").err().map(|why| why.to_string()))
    })?;
    b.create("more", "16M")?;
    listed(&[&a, &b, &c], "more")?;
    let again = a.tell(&["cluster", "init"])?;
    ensure!(again.contains("already"), "{again}");
    Ok(String::new())
}

fn stopped(room: &Room) -> Outcome {
    let [a, b, c] = three(room)?;
    let name = settled(&[&a, &b, &c], 3)?;
    let mut nodes = vec![("a", a), ("b", b), ("c", c)];
    for wanted in ["follower", "leader"] {
        let leads = |of: &str| of == name;
        let of = nodes
            .iter()
            .position(|(of, _)| leads(of) == (wanted == "leader"));
        let (stopped_name, node) = nodes.remove(of.ok_or("nobody of them does")?);
        node.signal(libc::SIGSTOP)?;
        let others: Vec<&Daemon> = nodes.iter().map(|(_, node)| node).collect();
        settled(&others, 2)?;
        says(others[0], &["status"], &["unreachable", stopped_name])?;
        let at = nodes[0].0;
        let volume = format!("while-{wanted}-sleeps");
        let disk = room.path(&format!("disk-{at}"));
        if !disk.exists() {
            add_disk(others[0], &disk)?;
        }
        others[0].create(&volume, "16M")?;
        node.signal(libc::SIGCONT)?;
        listed(&[&node], &volume)?;
        settled(&[others[0], others[1], &node], 3)?;
        nodes.push((stopped_name, node));
    }
    Ok(String::new())
}

fn members_set(room: &Room) -> Outcome {
    let [a, b, mut c] = three(room)?;
    let d = start(room, "d")?.run()?;
    join_to(&d, &a)?;
    says(&a, &["cluster", "members"], &["follower"])?;
    refuses(
        &a.ask(&["cluster", "members", "set", "a", "b"])?,
        &["1, 3 or 5"],
    )?;
    refuses(
        &a.ask(&["cluster", "members", "set", "a", "b", "z"])?,
        &["no node \"z\""],
    )?;
    c.kill()?;
    settled(&[&a, &b], 2)?;
    let dead = a.ask(&["cluster", "members", "set", "c"])?;
    refuses(&dead, &["stay as they are"])?;
    let dry = a.ask(&["cluster", "members", "set", "c", "--dry-run"])?;
    refuses(&dry, &["only 0 answer"])?;
    let dry = d.tell(&["cluster", "members", "set", "a", "b", "d", "--dry-run"])?;
    let is_said = ["added: d", "removed: c", "all 3 answer"];
    ensure!(is_said.iter().all(|one| dry.contains(one)), "{dry}");
    let said = a.tell(&["node", "show", "d"])?;
    ensure!(said.contains("follower"), "a dry run changed it: {said}");
    // Asked on a node that is none yet.
    d.tell(&["cluster", "members", "set", "a", "b", "d"])?;
    settled(&[&a, &b, &d], 3)?;
    let back = c.start.run()?;
    says(
        &back,
        &["cluster", "members"],
        &["follower", "member, leads"],
    )?;
    // What a person has named stays, also where three could be members.
    a.tell(&["cluster", "members", "set", "1"])?;
    add_disk(&back, &room.path("disk-c"))?;
    back.create("vol-c", "16M")?;
    listed(&[&a, &b, &d], "vol-c")?;
    let rows = rows(&a)?;
    let members = rows.iter().filter(|row| row.contains("member")).count();
    ensure!(members == 1, "{rows:?}");
    Ok(String::new())
}
