//! A volume that several nodes have at once: who writes the same blocks at different nodes sees one order.

use super::several_nodes::{add_disk, three, until};
use crate::harness::daemon::Daemon;
use crate::harness::nbd::{Connection, Replies};
use crate::harness::registers::{Act, Value, check, checks_itself};
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
/// Few, so that all clients meet at each.
const BLOCKS: u64 = 4;
const CLIENTS_A_NODE: u64 = 2;
/// Before a node dies, and after it.
const TIME: Duration = Duration::from_secs(3);
/// Of each node, in each of these times: a turn is 50 ms, so that there are many.
pub(super) const LEAST: usize = 100;

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "two_nodes_write_the_same_blocks_and_there_is_one_order_also_when_one_is_killed",
        one_order,
    )]
}

/// What a client did, by the block.
type Acts = Vec<(u64, Act)>;

/// Reads and writes blocks until it is told to end, or its node dies.
fn act(nbd: &Path, client: u64, begun: Instant, ends: &AtomicBool) -> Result<Acts, String> {
    let opened = Connection::open(nbd, "v", Replies::Structured);
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

/// All that clients do, and whether there is one order of it.
pub(super) struct Sharers {
    begun: Instant,
    clients: u64,
    registers: BTreeMap<u64, Vec<Act>>,
}

impl Sharers {
    /// With a check that can fail.
    pub fn new() -> Step<Sharers> {
        checks_itself()?;
        Ok(Sharers {
            begun: Instant::now(),
            clients: 0,
            registers: BTreeMap::new(),
        })
    }

    /// Has clients at all of these NBD servers at once for a while; `amid` is done in the middle. What came of each one's
    /// clients is counted.
    pub fn together(&mut self, at: &[&Path], amid: impl FnOnce() -> Step<()>) -> Step<Vec<usize>> {
        let ends = AtomicBool::new(false);
        let begun = self.begun;
        let all = std::thread::scope(|scope| {
            let mut clients = Vec::new();
            for (place, nbd) in at.iter().enumerate() {
                for _ in 0..CLIENTS_A_NODE {
                    let (id, ends) = (self.clients, &ends);
                    self.clients += 1;
                    clients.push((place, scope.spawn(move || act(nbd, id, begun, ends))));
                }
            }
            std::thread::sleep(TIME);
            let did = amid();
            std::thread::sleep(TIME);
            ends.store(true, Ordering::Relaxed);
            let mut all = Vec::new();
            for (place, client) in clients {
                let acts = client.join().map_err(|_| "a client panicked")??;
                all.push((place, acts));
            }
            did.map(|()| all)
        })?;
        let mut counts = vec![0; at.len()];
        for (place, acts) in all {
            counts[place] += acts.len();
            for (block, act) in acts {
                self.registers.entry(block).or_default().push(act);
            }
        }
        Ok(counts)
    }

    /// How many acts have one order.
    pub fn check(&self) -> Step<usize> {
        for (block, acts) in &self.registers {
            check(acts).map_err(|why| format!("block {block}: {why}"))?;
        }
        Ok(self.registers.values().map(Vec::len).sum())
    }
}

fn one_order(room: &Room) -> Outcome {
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
    let mut sharers = Sharers::new()?;
    let at = [&a, &b, &c].map(|node| node.start.nbd.clone());
    let counts = sharers.together(&[&at[0], &at[1]], || {
        let while_used = a.ask(&["volume", "set", "v", "--exclusive"])?;
        ensure!(while_used.code == Some(1), "it is in use: {while_used:?}");
        Ok(())
    })?;
    ensure!(
        counts.iter().all(|count| *count >= LEAST),
        "not both nodes got their turns: {counts:?}"
    );
    // The others go on when the dead one's lease has ended.
    let counts = sharers.together(&[&at[0], &at[1]], || b.kill())?;
    ensure!(
        counts[0] >= LEAST,
        "the node that lives did not go on: {counts:?}"
    );
    sharers.together(&[&at[0], &at[2]], || Ok(()))?;
    let acts = sharers.check()?;
    exclusive_again(&a)?;
    Ok(format!("{acts} reads and writes have one order"))
}

/// When nobody uses it any more, it may be made one that one node has.
fn exclusive_again(at: &Daemon) -> Step<()> {
    until("nobody has it", || {
        let said = at.ask(&["volume", "set", "v", "--exclusive"])?;
        Ok((said.code != Some(0)).then_some(said.err))
    })
}
