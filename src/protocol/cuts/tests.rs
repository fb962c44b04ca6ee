//! The golden stories in `testscripts/`: a coordinator with its cuts. Nothing is settled, answered or committed unless a step says so.

use super::*;
use crate::base::{BLOCK, Breaks, BufRef, DiskSlot, FamilyId, PgId, Request, RequestKind, Token};
use crate::protocol::stories;
use crate::protocol::volume::{self, Ask, Coordinator, OpenVolume, PieceId};
use std::fmt::Write;

const V: VolumeId = VolumeId(1);

struct Site {
    now: Time,
    cuts: Cuts,
    coordinator: Coordinator,
    /// Pieces that the replicas have not answered, by their first block.
    asked: BTreeMap<u64, PieceId>,
    told: String,
}

fn site(off: RulesOff) -> Site {
    Site {
        now: Time(1),
        cuts: Cuts::new(off),
        coordinator: Coordinator::new(Breaks::NONE),
        asked: BTreeMap::new(),
        told: String::new(),
    }
}

/// The number behind a word.
fn number(words: &[&str], word: &str) -> Option<u64> {
    let at = words.iter().position(|of| *of == word)?;
    words[at + 1].parse().ok()
}

fn layers(words: &[&str]) -> Layers {
    Layers {
        newest: LayerId(number(words, "newest").unwrap()),
        cutting: number(words, "cutting").map(LayerId),
    }
}

impl Site {
    fn step(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split_whitespace().collect();
        match words[..] {
            ["open", ..] => self.open(&words),
            ["catalog", ..] => self.cut(Input::Changed {
                volume: V,
                layers: layers(&words),
            }),
            ["write", block] => self.write(block.parse().unwrap()),
            ["answer", block] => {
                let piece = self.asked.remove(&block.parse().unwrap()).unwrap();
                let mut out = Vec::new();
                self.coordinator
                    .answered(piece, Ok(()), &[], &mut Vec::new(), &mut out);
                self.take(out);
            }
            ["settled"] => self.cut(Input::Settled { volume: V }),
            ["close"] => self.cut(Input::Closed { volume: V }),
            ["wait", _, "ms"] => {
                let ms = number(&words, "wait").unwrap();
                self.now = self.now + Duration::from_millis(ms);
                let mut out = Vec::new();
                self.cuts.expire(self.now, &mut out);
                self.carry_out(out);
            }
            _ => panic!("no such step: {step}"),
        }
        self.cuts.check();
        std::mem::take(&mut self.told)
    }

    fn open(&mut self, words: &[&str]) {
        let layers = layers(words);
        let host = number(words, "epoch").unwrap() as u32;
        let left = match words.contains(&"unsettled") {
            true => Left::Unsettled,
            false => Left::Settled,
        };
        let open = OpenVolume {
            id: V,
            family: FamilyId(1),
            layer: layers.newest,
            size: 1 << 20,
            pgs: vec![(PgId(1), Some(DiskSlot(0)))],
        };
        if !self.cuts.may_go_on(V, layers) {
            self.told += "  what is in flight starts over\n";
            self.cut(Input::Closed { volume: V });
            self.asked.clear();
            let mut out = Vec::new();
            self.coordinator.start_over(V, &mut out);
            self.take(out);
        }
        let mut out = Vec::new();
        self.coordinator.open_held(open, &mut out);
        self.cut(Input::Opened {
            volume: V,
            epoch: epoch(host),
            left,
            layers,
        });
        self.take(out);
    }

    fn write(&mut self, block: u64) {
        let request = Request {
            token: Token(block),
            volume: V,
            kind: RequestKind::Write,
            offset: block * BLOCK,
            len: BLOCK,
            buf: BufRef::default(),
            scratch: BufRef::default(),
        };
        let mut out = Vec::new();
        self.coordinator.request(request, &mut out);
        if out.is_empty() {
            writeln!(self.told, "  the write of block {block} waits").unwrap();
        }
        self.take(out);
    }

    fn cut(&mut self, input: Input) {
        let mut out = Vec::new();
        self.cuts.step(self.now, input, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let mut out = Vec::new();
            match output {
                Output::Go { .. } => {
                    self.told += "  requests go on\n";
                    self.coordinator.release(V, &mut out);
                }
                Output::Settle { .. } => self.told += "  every PG is to be sealed and recovered\n",
                Output::Switch { layer, .. } => {
                    writeln!(self.told, "  what starts from now on goes to layer {layer}").unwrap();
                    self.coordinator.cut(V, layer, &mut out);
                }
                Output::Freeze { layer, epoch, .. } => {
                    let host = epoch.host;
                    writeln!(
                        self.told,
                        "  to the manager: layer {layer} is frozen, says epoch {host}"
                    )
                    .unwrap();
                }
            }
            self.take(out);
        }
    }

    fn take(&mut self, outputs: Vec<volume::Output>) {
        for output in outputs {
            match output {
                volume::Output::Ask {
                    piece,
                    target,
                    ask: Ask::Write { run, .. },
                } => {
                    let block = target.chunk.block(run.first()).0;
                    let layer = target.layer;
                    writeln!(self.told, "  block {block} goes to layer {layer}").unwrap();
                    self.asked.insert(block, piece);
                }
                volume::Output::Checksum { piece, .. } => {
                    let mut out = Vec::new();
                    self.coordinator.checksummed(piece, &[0], &mut out);
                    self.take(out);
                }
                volume::Output::Reply { token, result, .. } => {
                    let block = token.0;
                    let how = match result {
                        Ok(()) => "is acknowledged",
                        Err(_) => "fails: it may have happened, and must not once more",
                    };
                    writeln!(self.told, "  the write of block {block} {how}").unwrap();
                }
                volume::Output::Cut { volume } => {
                    self.told += "  nothing is in flight below\n";
                    self.cut(Input::Drained { volume });
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn epoch(host: u32) -> Epoch {
    Epoch {
        host,
        ..Epoch::default()
    }
}

#[test]
fn the_stories_are_told_as_they_were() {
    stories::play("cuts", || site(RulesOff::NONE), Site::step);
}

/// Without the rule the layer is called frozen while a write to it is on its way.
#[cfg(feature = "sim")]
#[test]
fn without_r21_a_layer_is_frozen_while_it_is_still_written_to() {
    let steps = [
        "open epoch 1 settled newest 1",
        "write 7",
        "catalog newest 2 cutting 1",
    ];
    let told = |off| -> String {
        let mut site = site(off);
        steps.iter().map(|step| site.step(step)).collect()
    };
    assert!(!told(RulesOff::NONE).contains("layer 1 is frozen"));
    assert!(told(RulesOff::only(Rule::R21)).contains("layer 1 is frozen"));
}

/// Without the rule a volume is served while an earlier owner may still begin writes.
#[cfg(feature = "sim")]
#[test]
fn without_r5_settled_a_volume_is_served_beside_its_last_owner() {
    let told = |off| site(off).step("open epoch 1 unsettled newest 1");
    assert!(!told(RulesOff::NONE).contains("go on"));
    assert!(told(RulesOff::only(Rule::R5Settled)).contains("go on"));
}
