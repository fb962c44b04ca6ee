//! What is full says so, and goes on when there is room again.

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, Epoch, FamilyId, LayerId, Payload, PgId,
    Stamp, VolumeId,
};
use crate::protocol::replication::FLYING_MAX as GROUP_FLYING_MAX;
use crate::protocol::replication::fill::{Content, FillAnswer, FillAsk, FillHeader};
use crate::protocol::replication::group::{self, Group, Tag};
use crate::protocol::replication::replica::{Asker, Durable, Input, Op, Output};
use crate::protocol::replication::{
    Answer, Change, Configuration, Entry, Header, MEMBERS_MAX, Message, Reconfigure, Refusal,
    Replica, Role, Room, RulesOff, WINDOW_MAX,
};

const PG: PgId = PgId(1);
const RANGE: VolumeId = VolumeId(1);
const SOURCE: DiskId = DiskId(1);
const JOINER: DiskId = DiskId(2);
/// What an answer to a seal may tell: the wire carries no more.
const TOLD_MAX: usize = MEMBERS_MAX * WINDOW_MAX;

fn epoch(host: u32) -> Epoch {
    Epoch {
        host,
        ..Epoch::default()
    }
}

fn chunk(number: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(number),
    }
}

fn entry(sequence: u64, at: ChunkId, blocks: u16) -> Entry {
    Entry {
        epoch: epoch(1),
        sequence,
        at,
        blocks,
        version: 1,
    }
}

fn buf() -> Payload {
    Payload::kept(BufRef {
        id: BufId(1),
        block: 0,
    })
}

/// A replica whose disk is fast, with the manager's configuration of its PG.
struct Site {
    replica: Replica,
    manager: Configuration,
    epoch: u32,
    sequence: u64,
    mark: u64,
    /// Whether what it asks of its disk for others waits.
    is_slow: bool,
    /// Whether its disk has no room for what it is filled with.
    is_full: bool,
}

impl Site {
    fn new(disk: DiskId, durable: Durable) -> Site {
        Site {
            replica: Replica::new((PG, disk), durable, RulesOff::NONE),
            manager: Configuration::new([SOURCE, JOINER]),
            epoch: 1,
            // Some of it has the mark 1.
            sequence: 1,
            mark: 0,
            is_slow: false,
            is_full: false,
        }
    }

    /// Takes an input; what others hear of it.
    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut inputs = vec![input];
        let mut heard = Vec::new();
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            self.replica.step(input, &mut out);
            for output in out {
                match output {
                    Output::Change { op, .. } if self.is_slow => heard.push(Output::Read {
                        op,
                        at: chunk(0),
                        run: BlockRun::WHOLE,
                    }),
                    Output::Fill { op, .. } if self.is_full => {
                        inputs.push(Input::Stored { op, ok: false });
                    }
                    Output::Fence { op, .. }
                    | Output::Change { op, .. }
                    | Output::Fill { op, .. } => inputs.push(Input::Stored { op, ok: true }),
                    Output::List {
                        op: op @ Op::OwnList { .. },
                        ..
                    } => inputs.push(Input::Listed {
                        op,
                        chunks: Vec::new(),
                        more: false,
                    }),
                    other => heard.push(other),
                }
            }
        }
        heard
    }

    fn frame(&mut self, message: Message) -> Vec<Output> {
        let header = Header {
            range: RANGE,
            pg: PG,
            epoch: epoch(self.epoch),
            version: self.manager.version(),
            session: self.manager.session(JOINER),
            mark: self.mark,
        };
        let payload = matches!(message, Message::Change { .. }).then(buf);
        self.step(Input::Frame {
            from: Asker(1),
            header,
            message,
            payload,
        })
    }

    /// The next change, of the first block of a chunk.
    fn change(&mut self, at: u64) -> Vec<Output> {
        self.change_block(at, 0)
    }

    fn change_block(&mut self, at: u64, block: u32) -> Vec<Output> {
        self.sequence += 1;
        let run = BlockRun::new(block, 1).expect("a block of the chunk");
        self.frame(Message::Change {
            sequence: self.sequence,
            at: chunk(at),
            change: Change::Write { run, crcs: [0; 16] },
        })
    }

    /// The joiner is taken out if it is in, and joins anew: its session begins. What it asks of its source then.
    fn join(&mut self) -> Vec<Output> {
        let disk = JOINER;
        let mut apply = |change| {
            let version = self.manager.version();
            self.manager.apply(version, change, 1).expect("it can be");
        };
        apply(Reconfigure::Evict { disk });
        apply(Reconfigure::Join { disk });
        let configuration = self.manager.clone();
        let asked = self.step(Input::Configured(configuration));
        let (header, ask) = asks(&asked)[0];
        assert_eq!(ask, FillAsk::Fences { after: None });
        let fences = vec![(RANGE, epoch(self.epoch))];
        let more = false;
        self.fill_answer(header, FillAnswer::Fences { fences, more })
    }

    fn fill_answer(&mut self, header: FillHeader, answer: FillAnswer) -> Vec<Output> {
        self.step(Input::FillAnswer {
            header,
            answer,
            payload: Some(buf()),
        })
    }

    /// A joiner asks for a chunk.
    fn fetch(&mut self, id: u64) -> Vec<Output> {
        let header = FillHeader {
            pg: PG,
            version: 1,
            session: 0,
            id,
        };
        let (from, ask) = (Asker(2), FillAsk::Fetch { at: chunk(id) });
        self.step(Input::FillAsk { from, header, ask })
    }

    /// A new owner seals: what it is told.
    fn seal(&mut self) -> Answer {
        self.epoch += 1;
        self.mark = 0;
        answers(self.frame(Message::Seal)).remove(0)
    }
}

/// What a joiner asked its source.
fn asks(heard: &[Output]) -> Vec<(FillHeader, FillAsk)> {
    let asked = heard.iter().filter_map(|output| match output {
        Output::FillAsk { header, ask, .. } => Some((*header, *ask)),
        _ => None,
    });
    asked.collect()
}

fn answers(heard: Vec<Output>) -> Vec<Answer> {
    let answers = heard.into_iter().filter_map(|output| match output {
        Output::Answer { answer, .. } => Some(answer),
        _ => None,
    });
    answers.collect()
}

fn is_busy(heard: Vec<Output>) -> bool {
    let why = answers(heard).pop();
    matches!(
        why,
        Some(Answer::Refused {
            why: Refusal::Busy,
            ..
        })
    )
}

/// One layer's content of a chunk, with these entries.
fn content(at: ChunkId, entries: &[Entry]) -> FillAnswer {
    FillAnswer::Content {
        at,
        content: Content {
            stamp: Stamp::default(),
            data: 0b11,
            zeroes: 0,
            crcs: [0; 16],
        },
        entries: entries.iter().map(|entry| (RANGE, *entry)).collect(),
    }
}

#[test]
fn a_joiner_that_is_dropped_again_and_again_tells_no_more_than_a_seal_carries() {
    let mut site = Site::new(JOINER, Durable::created(1));
    let mut asked = Vec::new();
    let mut refused = 0;
    for session in 0..10 {
        asked = asks(&site.join());
        site.mark = 1;
        for n in 0..WINDOW_MAX as u64 {
            refused += usize::from(is_busy(site.change(session * WINDOW_MAX as u64 + n)));
        }
        site.replica.check();
    }
    assert_eq!(refused, 10 * WINDOW_MAX - TOLD_MAX, "the rest was taken");
    // What takes room is fetched first, and when it is filled there is room again.
    let (header, FillAsk::Fetch { at }) = asked[0] else {
        panic!("{asked:?}");
    };
    assert!(is_busy(site.change(1 << 30)));
    site.fill_answer(header, content(at, &[]));
    assert!(!is_busy(site.change(1 << 30)));
    site.replica.check();
    let Answer::Sealed { window, .. } = site.seal() else {
        panic!("the seal is answered");
    };
    assert_eq!(window.len(), TOLD_MAX);
}

#[test]
fn a_chunk_whose_entries_have_no_room_is_asked_for_again_and_then_filled() {
    let mut site = Site::new(JOINER, Durable::created(1));
    let asked = asks(&site.join());
    let (header, FillAsk::List { .. }) = asked[0] else {
        panic!("{asked:?}");
    };
    let at = chunk(1 << 30);
    let listed = FillAnswer::Listed {
        chunks: vec![at],
        more: false,
    };
    let (header, fetch) = asks(&site.fill_answer(header, listed))[0];
    assert_eq!(fetch, FillAsk::Fetch { at });
    // Amid a recovery, of which nothing is acknowledged yet: all but one place of the window.
    for n in 1..TOLD_MAX as u64 {
        assert!(!is_busy(site.change(n)));
    }
    let entries = [entry(1, at, 0b01), entry(2, at, 0b10)];
    let heard = site.fill_answer(header, content(at, &entries));
    assert_eq!(heard, [], "it is not filled");
    site.replica.check();
    let again = asks(&site.step(Input::AskAgain));
    let (header, fetch) = again[0];
    assert_eq!(fetch, FillAsk::Fetch { at });
    // A change on its way to the disk needs its place as well, and a mark makes room.
    site.mark = 10;
    site.frame(Message::Mark);
    let filled = site.fill_answer(header, content(at, &entries));
    let is_filled = |output: &Output| matches!(output, Output::Filled { .. });
    assert!(filled.iter().any(is_filled), "{filled:?}");
    site.replica.check();
    let Answer::Sealed { window, .. } = site.seal() else {
        panic!("the seal is answered");
    };
    assert_eq!(window.iter().filter(|entry| entry.at == at).count(), 2);
}

/// The manager may hear of *filled* first.
#[test]
fn a_session_in_which_a_chunk_could_not_be_stored_is_lost_and_never_filled() {
    let mut site = Site::new(JOINER, Durable::created(1));
    site.is_full = true;
    let (header, _) = asks(&site.join())[0];
    let listed = FillAnswer::Listed {
        chunks: vec![chunk(0)],
        more: false,
    };
    let (header, _) = asks(&site.fill_answer(header, listed))[0];
    let mut heard = site.fill_answer(header, content(chunk(0), &[]));
    site.is_full = false;
    heard.extend(site.step(Input::AskAgain));
    let is_lost = |output: &Output| matches!(output, Output::Lost { .. });
    let is_filled = |output: &Output| matches!(output, Output::Filled { .. });
    assert!(heard.iter().any(is_lost), "{heard:?}");
    assert!(!heard.iter().any(is_filled), "{heard:?}");
    site.replica.check();
}

#[test]
fn entries_of_an_epoch_that_is_not_fenced_here_are_not_taken() {
    let mut site = Site::new(JOINER, Durable::created(1));
    let (header, _) = asks(&site.join())[0];
    let listed = FillAnswer::Listed {
        chunks: vec![chunk(0)],
        more: false,
    };
    let (header, _) = asks(&site.fill_answer(header, listed))[0];
    let newer = Entry {
        epoch: epoch(7),
        ..entry(1, chunk(0), 1)
    };
    assert_eq!(site.fill_answer(header, content(chunk(0), &[newer])), []);
    site.replica.check();
    let again = asks(&site.step(Input::AskAgain));
    assert_eq!(again.len(), 1, "no source of ours says so: asked again");
}

#[test]
fn a_window_that_is_found_longer_than_a_seal_carries_is_not_told_in_part() {
    let found = |count| {
        let entries = (1..=count as u64).map(|n| entry(n, chunk(n), 1)).collect();
        Durable::found(1, 0, [(RANGE, epoch(1), 0, entries)])
    };
    let mut site = Site::new(SOURCE, found(TOLD_MAX));
    assert!(matches!(site.seal(), Answer::Sealed { window, .. } if window.len() == TOLD_MAX));
    let mut site = Site::new(SOURCE, found(TOLD_MAX + 1));
    let why = Refusal::Failed;
    assert!(matches!(site.seal(), Answer::Refused { why: of, .. } if of == why));
}

#[test]
fn all_changes_that_wait_for_chunks_on_their_way_have_one_bound() {
    const CHUNKS: u64 = 64;
    const EACH: u64 = 20;
    let mut site = Site::new(SOURCE, Durable::created(1));
    site.frame(Message::Seal);
    site.mark = 1;
    site.step(Input::Pace(CHUNKS as u32));
    let fetches: Vec<Output> = (0..CHUNKS).flat_map(|id| site.fetch(id)).collect();
    assert_eq!(fetches.len(), CHUNKS as usize);
    let all: Vec<bool> = (0..CHUNKS * EACH)
        .map(|n| is_busy(site.change_block(n % CHUNKS, (n / CHUNKS % 16) as u32)))
        .collect();
    assert_eq!(all.iter().filter(|busy| !**busy).count(), 1024);
    site.replica.check();
    // Each fetch that ends lets its own go on, and others may wait.
    let Output::Fetch { op, .. } = fetches[0] else {
        panic!("{:?}", fetches[0]);
    };
    let done = answers(site.step(Input::NotLoaded { op }));
    assert_eq!(done.len(), 16, "1024 are 16 of each chunk");
    assert!(!is_busy(site.change_block(1, 15)));
    site.replica.check();
}

#[test]
fn seals_that_wait_for_the_disk_are_bounded() {
    let mut site = Site::new(SOURCE, Durable::created(1));
    site.frame(Message::Seal);
    (site.is_slow, site.mark) = (true, 1);
    assert_eq!(site.manager.role(SOURCE), Some(Role::InSync));
    let Some(Output::Read { op, .. }) = site.change(0).pop() else {
        panic!("a change is on its way to the disk");
    };
    for _ in 0..1024 {
        assert_eq!(site.frame(Message::Seal), []);
    }
    assert!(is_busy(site.frame(Message::Seal)));
    site.replica.check();
    let told = answers(site.step(Input::Stored { op, ok: true }));
    assert_eq!(told.len(), 1 + 1024);
}

/// Its joiner has not heard of it, and takes it for one that has everything.
#[test]
fn a_replica_whose_disk_was_emptied_fills_nobody_under_an_older_version() {
    let mut manager = Configuration::new([SOURCE, JOINER, DiskId(3)]);
    let disk = JOINER;
    let version = manager.version();
    manager
        .apply(version, Reconfigure::Evict { disk }, 1)
        .unwrap();
    manager
        .apply(version + 1, Reconfigure::Join { disk }, 1)
        .unwrap();
    let before = manager.version();
    let ask = |site: &mut Site| {
        let header = FillHeader {
            pg: PG,
            version: before,
            session: before,
            id: 1,
        };
        let heard = site.step(Input::FillAsk {
            from: Asker(2),
            header,
            ask: FillAsk::Fences { after: None },
        });
        let answers = heard.into_iter().filter_map(|output| match output {
            Output::FillAnswer { answer, .. } => Some(answer),
            _ => None,
        });
        answers.collect::<Vec<_>>()
    };
    let mut source = Site::new(SOURCE, Durable::created(1));
    source.step(Input::Configured(manager.clone()));
    let fences = ask(&mut source);
    assert!(
        matches!(fences[..], [FillAnswer::Fences { .. }]),
        "{fences:?}"
    );
    // Its disk is another one: the manager has it empty.
    let (disk, version) = (SOURCE, manager.version());
    manager
        .apply(version, Reconfigure::Remove { disk }, 1)
        .unwrap();
    manager
        .apply(version + 1, Reconfigure::Add { disk }, 1)
        .unwrap();
    let mut source = Site::new(SOURCE, Durable::created(0));
    source.step(Input::Configured(manager.clone()));
    assert_eq!(ask(&mut source), [FillAnswer::Version(manager.version())]);
}

/// The chunks that are read for joiners, of what was heard.
fn fetched(heard: &[Output]) -> Vec<u64> {
    let chunks = heard.iter().filter_map(|output| match output {
        Output::Fetch { at, .. } => Some(at.chunk.0),
        _ => None,
    });
    chunks.collect()
}

#[test]
fn a_source_reads_as_many_chunks_at_once_as_its_pace_and_those_that_wait_hold_up_no_write() {
    let mut site = Site::new(SOURCE, Durable::created(1));
    site.frame(Message::Seal);
    site.mark = 1;
    assert!(!site.replica.is_rebuilding());
    site.step(Input::Pace(2));
    let heard: Vec<Output> = (0..5).flat_map(|id| site.fetch(id)).collect();
    assert_eq!(fetched(&heard), [0, 1]);
    assert!(site.replica.is_rebuilding());
    assert_eq!(site.fetch(4), [], "asked again, it waits once");
    let done = answers(site.change(4));
    assert!(matches!(done[..], [Answer::Done { .. }]), "{done:?}");
    assert_eq!(answers(site.change(1)), [], "this one is being read");
    let op = Op::Fetch(1);
    assert_eq!(fetched(&site.step(Input::NotLoaded { op })), [2]);
    assert_eq!(fetched(&site.step(Input::Pace(64))), [3, 4]);
    site.replica.check();
}

/// A joiner with the fastest pace, and a source whose disk reads a chunk in 10 ms; each 100 ms the joiner asks again. After how many of those 10 ms it is filled.
fn fill_from_a_slow_source(chunks: u64) -> Option<u64> {
    let mut joiner = Site::new(JOINER, Durable::created(1));
    joiner.step(Input::Pace(64));
    let mut source = Site::new(SOURCE, Durable::created(1));
    source.frame(Message::Seal);
    source.step(Input::Pace(1));
    let mut heard = joiner.join();
    source.step(Input::Configured(joiner.manager.clone()));
    let mut reads: Vec<(Op, ChunkId)> = Vec::new();
    for tick in 0..4 * chunks {
        if tick % 10 == 9 {
            heard.extend(joiner.step(Input::AskAgain));
        }
        if let Some((op, at)) = reads.pop() {
            let content = Content {
                stamp: Stamp::default(),
                data: 1,
                zeroes: 0,
                crcs: [0; 16],
            };
            let (content, payload) = (content, Some(buf()));
            let input = Input::Fetched {
                op,
                content,
                payload,
            };
            assert!(at.chunk.0 < chunks);
            heard.extend(source.step(input));
        }
        while let Some(output) = heard.pop() {
            let more = match output {
                Output::FillAsk { header, ask, .. } => source.step(Input::FillAsk {
                    from: Asker(JOINER.0),
                    header,
                    ask,
                }),
                Output::FillAnswer { header, answer, .. } => joiner.fill_answer(header, answer),
                Output::List { op, .. } => source.step(Input::Listed {
                    op,
                    chunks: (0..chunks).map(chunk).collect(),
                    more: false,
                }),
                Output::Fetch { op, at } => {
                    reads.push((op, at));
                    Vec::new()
                }
                Output::Filled { .. } => return Some(tick),
                _ => Vec::new(),
            };
            heard.extend(more);
        }
        assert!(reads.len() <= 1, "the source keeps its pace");
    }
    None
}

#[test]
fn what_a_slow_source_reads_is_taken_however_often_the_joiner_has_asked_again() {
    let took = fill_from_a_slow_source(200).expect("it is filled");
    assert!(took <= 220, "chunks are read once: {took}");
}

#[test]
fn chunks_that_wait_to_be_read_are_bounded() {
    let mut site = Site::new(SOURCE, Durable::created(1));
    site.frame(Message::Seal);
    site.step(Input::Pace(1));
    let says_no = |heard: &Vec<Output>| {
        let is_it = |output: &Output| {
            let Output::FillAnswer { answer, .. } = output else {
                return false;
            };
            *answer == FillAnswer::NotNow
        };
        heard.iter().any(is_it)
    };
    let heard: Vec<Vec<Output>> = (0..300).map(|id| site.fetch(id)).collect();
    assert_eq!(
        heard.iter().filter(|heard| says_no(heard)).count(),
        300 - 257
    );
    site.replica.check();
}

#[test]
fn what_waits_to_hear_whether_it_fits_counts_as_in_flight() {
    let configuration = Configuration::new([SOURCE, JOINER]);
    let (of, off) = ((RANGE, PG), RulesOff::NONE);
    let mut out = Vec::new();
    let mut group = Group::new(of, epoch(1), configuration, None, off, &mut out);
    for output in std::mem::take(&mut out) {
        let group::Output::Send { to, header, .. } = output else {
            panic!("{output:?}")
        };
        let (window, room) = (Vec::new(), Room::Low);
        let input = group::Input::Answer {
            from: to,
            header,
            answer: Answer::Sealed { window, room },
            payload: None,
        };
        group.step(input, &mut out);
    }
    out.clear();
    let write = |group: &mut Group, tag: u64, out: &mut Vec<group::Output>| {
        let (run, crcs) = (BlockRun::WHOLE, [0; 16]);
        let ask = group::Ask::Change {
            at: chunk(tag),
            change: Change::Write { run, crcs },
            payload: Some(buf()),
        };
        let tag = Tag(tag);
        group.step(group::Input::Ask { tag, ask }, out);
        group.check();
    };
    for tag in 0..GROUP_FLYING_MAX as u64 {
        write(&mut group, tag, &mut out);
    }
    let is_question = |output: &group::Output| {
        let asks = |message: &Message| matches!(message, Message::Fits { .. });
        matches!(output, group::Output::Send { message, .. } if asks(message))
    };
    assert_eq!(out.len(), 2 * GROUP_FLYING_MAX);
    assert!(out.iter().all(is_question));
    out.clear();
    write(&mut group, 9_999, &mut out);
    let (tag, why) = (Tag(9_999), group::Failure::Busy);
    assert_eq!(out, [group::Output::Failed { tag, why }]);
}
