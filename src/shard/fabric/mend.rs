//! The menders of the shard's disks: what is damaged on one is asked of others, and lent to them.

use super::Fabric;
use super::door::{Output, StoreAsk, To};
use crate::base::{DiskId, PgId, Time};
use crate::protocol::scrub;
use crate::wire::Frame;

impl Fabric {
    pub(super) fn expire_menders(&mut self, now: Time, out: &mut Vec<Output>) {
        for (&disk, mender) in &mut self.menders {
            if mender.deadline().is_some_and(|at| at <= now) {
                let mut list = Vec::new();
                mender.expire(now, &mut list);
                take_mender(disk, list, out);
            }
        }
    }

    pub(super) fn step_mender(
        &mut self,
        now: Time,
        disk: DiskId,
        input: scrub::Input,
        out: &mut Vec<Output>,
    ) {
        if let Some(mender) = self.menders.get_mut(&disk) {
            let mut list = Vec::new();
            mender.step(now, input, &mut list);
            take_mender(disk, list, out);
        }
    }
}

fn take_mender(disk: DiskId, list: Vec<scrub::Output>, out: &mut Vec<Output>) {
    out.extend(list.into_iter().map(|output| match output {
        scrub::Output::Ask { to, header, ask } => Output::Send {
            to: To::Disk(to),
            disk: to,
            frame: Frame::MendAsk(header, ask),
            payload: None,
        },
        scrub::Output::Answer {
            header,
            answer,
            payload,
        } => Output::Send {
            to: To::Disk(header.asker),
            disk,
            frame: Frame::MendAnswer(header, answer),
            payload,
        },
        scrub::Output::Mend { pg, .. }
        | scrub::Output::Look { pg, .. }
        | scrub::Output::Salvage { pg, .. } => Output::Store {
            disk,
            pg: PgId(pg.0),
            ask: StoreAsk::Mender(output),
        },
    }));
}
