//! A volume that several nodes have at once: who writes the same blocks at different nodes sees one order.

use super::several_nodes::{add_disk, three, until};
use crate::harness::daemon::{Daemon, Start};
use crate::harness::nbd::{Connection, Replies};
use crate::harness::registers::{Act, Value, check, checks_itself};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
/// Few, so that all clients meet at each.
const BLOCKS: u64 = 4;
const CLIENTS_A_NODE: u64 = 2;
/// Before a node dies, and after it.
const TIME: Duration = Duration::from_secs(3);
/// Of each node, in each of these times: a turn is 50 ms, so that there are many.
const LEAST: usize = 100;

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "two_nodes_write_the_same_blocks_and_there_is_one_order_also_when_one_is_killed",
        one_order,
    )]
}

/// What a client did, by the block.
type Acts = Vec<(u64, Act)>;

/// Reads and writes blocks until it is told to end, or its node dies.
fn act(start: &Start, client: u64, begun: Instant, ends: &AtomicBool) -> Result<Acts, String> {
    let opened = Connection::open(&start.nbd, "v", Replies::Structured);
    let mut connection = opened.map_err(|why| why.to_string())?;
    let (mut acts, mut next) = (Acts::new(), client + 1);
    let mut random = client + 1;
    while !ends.load(Ordering::Relaxed) {
        // Marsaglia's xorshift: which block and what is done with it need no better.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (block, is_write) = (random % BLOCKS, random >> 32 & 1 == 0);
        let mut did = Act {
            value: 0,
            is_write,
            asked: begun.elapsed(),
            answered: None,
        };
        let offset = block * BLOCK as u64;
        if is_write {
            did.value = (next << 8) | client;
            next += 1;
            let data: Vec<u8> = did.value.to_le_bytes().repeat(BLOCK / 8);
            match connection.write(offset, &data) {
                Ok(Ok(())) => did.answered = Some(begun.elapsed()),
                Ok(Err(error)) => return Err(format!("a write was refused: {error}")),
                Err(_) => {
                    acts.push((block, did));
                    return Ok(acts);
                }
            }
        } else {
            match connection.read(offset, BLOCK as u32) {
                Ok(Ok(data)) => {
                    did.answered = Some(begun.elapsed());
                    did.value = value_of(&data)?;
                }
                Ok(Err(error)) => return Err(format!("a read was refused: {error}")),
                Err(_) => return Ok(acts),
            }
        }
        acts.push((block, did));
    }
    Ok(acts)
}

fn value_of(data: &[u8]) -> Result<Value, String> {
    let (words, _) = data.as_chunks::<8>();
    let first = *words.first().ok_or("nothing was read")?;
    match words.iter().all(|word| *word == first) {
        true => Ok(Value::from_le_bytes(first)),
        false => Err("a block was read that nobody wrote".into()),
    }
}

/// Has clients of both nodes at it at once for a while; `amid` is done in the middle.
fn together(
    nodes: &[&Start],
    ids: &mut u64,
    begun: Instant,
    amid: impl FnOnce() -> Step<()>,
) -> Step<Vec<(usize, Acts)>> {
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for (node, start) in nodes.iter().enumerate() {
            for _ in 0..CLIENTS_A_NODE {
                let (id, ends) = (*ids, &ends);
                *ids += 1;
                clients.push((node, scope.spawn(move || act(start, id, begun, ends))));
            }
        }
        std::thread::sleep(TIME);
        let did = amid();
        std::thread::sleep(TIME);
        ends.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for (node, client) in clients {
            let acts = client.join().map_err(|_| "a client panicked")??;
            all.push((node, acts));
        }
        did.map(|()| all)
    })
}

fn one_order(room: &Room) -> Outcome {
    checks_itself()?;
    let [a, mut b, c] = three(room)?;
    for (node, name) in [(&a, "disk-a"), (&b, "disk-b"), (&c, "disk-c")] {
        add_disk(node, &room.path(name))?;
    }
    a.tell(&["pool", "set", "default", "--copies", "2"])?;
    a.create("v", "16M")?;
    a.tell(&["volume", "set", "v", "--shared"])?;
    let shown = b.tell(&["--json", "volume", "show", "v"])?;
    ensure!(
        shown.contains("\"shared\": true"),
        "it is not shared: {shown}"
    );
    let (begun, mut ids) = (Instant::now(), 0);
    let (at_a, at_b) = (a.start.clone(), b.start.clone());
    let mut all = together(&[&at_a, &at_b], &mut ids, begun, || {
        let while_used = a.ask(&["volume", "set", "v", "--exclusive"])?;
        ensure!(while_used.code == Some(1), "it is in use: {while_used:?}");
        Ok(())
    })?;
    let mut counts = counts(&all);
    ensure!(
        counts.len() == 2 && counts.values().all(|count| *count >= LEAST),
        "not both nodes got their turns: {counts:?}"
    );
    // The others go on when the dead one's lease has ended.
    let after = together(&[&at_a, &at_b], &mut ids, begun, || b.kill())?;
    counts = self::counts(&after);
    all.extend(after);
    ensure!(
        counts.get(&0).is_some_and(|count| *count >= LEAST),
        "the node that lives did not go on: {counts:?}"
    );
    let at_c = &c.start;
    all.extend(together(&[&at_a, at_c], &mut ids, begun, || Ok(()))?);
    let mut registers: BTreeMap<u64, Vec<Act>> = BTreeMap::new();
    for (block, act) in all.into_iter().flat_map(|(_, acts)| acts) {
        registers.entry(block).or_default().push(act);
    }
    let mut acts = 0;
    for (block, of) in &registers {
        check(of).map_err(|why| format!("block {block}: {why}"))?;
        acts += of.len();
    }
    exclusive_again(&a)?;
    Ok(format!("{acts} reads and writes have one order"))
}

fn counts(all: &[(usize, Acts)]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for (node, acts) in all {
        *counts.entry(*node).or_default() += acts.len();
    }
    counts
}

/// When nobody uses it any more, it may be made one that one node has.
fn exclusive_again(at: &Daemon) -> Step<()> {
    until("nobody has it", || {
        let said = at.ask(&["volume", "set", "v", "--exclusive"])?;
        Ok((said.code != Some(0)).then_some(said.err))
    })
}
