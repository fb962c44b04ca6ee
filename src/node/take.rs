//! What the machines of a node want, handed on.

use super::door::Output;
use super::machine::Node;
use crate::base::Time;
use crate::protocol::catalog::Catalog;
use crate::protocol::cuts;
use crate::protocol::membership::HolderOutput;
use crate::protocol::report::Report;
use crate::protocol::turns;
use crate::protocol::volume::pgs_with_extents;
use crate::shard::fabric::Order;

impl Node {
    pub(super) fn take_lease(
        &mut self,
        now: Time,
        list: Vec<HolderOutput>,
        catalog: &Catalog,
        out: &mut Vec<Output>,
    ) {
        for output in list {
            let mut of_turns = Vec::new();
            match output {
                HolderOutput::Send { to, ask } => out.push(Output::Ask { to, ask }),
                HolderOutput::Held { lease, until } => {
                    out.push(Output::Order(Order::Leased { until }));
                    let leased = turns::Input::Leased(lease);
                    self.turns.step(now, leased, &mut of_turns);
                    self.again_at = now;
                }
                HolderOutput::Extended { until } => {
                    out.push(Output::Order(Order::Extended { until }));
                }
                HolderOutput::Fenced { .. } => {
                    let until = Time(0);
                    out.push(Output::Order(Order::Extended { until }));
                    self.turns.step(now, turns::Input::Unleased, &mut of_turns);
                }
                HolderOutput::Refused { .. } | HolderOutput::Stopped { .. } => {}
            }
            self.take_turns(now, of_turns, catalog, out);
        }
    }

    pub(super) fn take_turns(
        &mut self,
        now: Time,
        list: Vec<turns::Output>,
        catalog: &Catalog,
        out: &mut Vec<Output>,
    ) {
        for output in list {
            out.push(match output {
                turns::Output::Take {
                    volume,
                    lease,
                    after,
                } => Output::Report(Report::Take {
                    volume,
                    lease,
                    after,
                }),
                turns::Output::Give {
                    volume,
                    epoch,
                    left,
                } => Output::Report(Report::Give {
                    volume,
                    epoch,
                    left,
                }),
                turns::Output::Hand {
                    volume,
                    epoch,
                    to,
                    left,
                } => Output::Report(Report::Hand {
                    volume,
                    epoch,
                    to,
                    left,
                }),
                turns::Output::Want {
                    volume,
                    owner,
                    epoch,
                    by,
                    missed,
                } => Output::Want {
                    to: owner,
                    volume,
                    epoch,
                    by,
                    missed,
                },
                turns::Output::Suspend { volume } => {
                    self.close_cuts(now, volume);
                    self.open.remove(&volume);
                    Output::Order(Order::Suspend { volume })
                }
                turns::Output::Open { volume, epoch } => {
                    self.open(now, (volume, epoch), catalog, out);
                    continue;
                }
                turns::Output::Drain { volume } => Output::Order(Order::Pause { volume }),
                turns::Output::Resume { volume } => Output::Order(Order::Resume { volume }),
                turns::Output::Close { volume } => {
                    self.close_cuts(now, volume);
                    self.open.remove(&volume);
                    Output::Order(Order::Close { volume })
                }
            });
        }
    }

    pub(super) fn take_cuts(
        &mut self,
        list: Vec<cuts::Output>,
        catalog: &Catalog,
        out: &mut Vec<Output>,
    ) {
        for output in list {
            out.push(match output {
                cuts::Output::Go { volume } => Output::Order(Order::Release { volume }),
                cuts::Output::Switch { volume, layer } => {
                    Output::Order(Order::Switch { volume, layer })
                }
                cuts::Output::Settle { volume } => {
                    let Some(of) = catalog.volume(volume) else {
                        continue;
                    };
                    // Where no copy is left there is nothing to seal, and the rest must not wait for it.
                    let pgs = catalog.pgs_of_volume(of);
                    let mut pgs = pgs_with_extents(of.family, of.size, pgs);
                    pgs.retain(|&pg| catalog.has_copies(pg));
                    Output::Order(Order::Settle { volume, pgs })
                }
                cuts::Output::Freeze {
                    volume,
                    layer,
                    epoch,
                } => Output::Report(Report::Frozen {
                    volume,
                    layer,
                    epoch,
                }),
            });
        }
    }
}
