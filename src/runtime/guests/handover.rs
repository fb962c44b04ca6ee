//! A connection is made ready for the next process: its rings rest, and everything of it is told in messages.

use super::Change;
use super::connection::{Connection, Ended};
use crate::frontend::vhost_user::{Beside, Handed};
use crate::io::SharedMap;
use std::io;
use std::os::fd::OwnedFd;

impl Connection<'_> {
    /// Stops its rings where they are and leaves the connection with its guest's entry. Where that fails it is closed.
    pub(super) fn hand_over(mut self) -> Ended {
        let ran = !self.session.running().is_empty();
        if let Err(ended) = self.rest() {
            let _ = self.stop_all(); // where the shards have gone, nothing of it is there either
            return ended;
        }
        let entry = self.entry;
        // A size that its driver was not told of yet is told by the next process.
        let size = match self.changed {
            true => 0,
            false => self.session.device.size,
        };
        match self.into_handed(ran, size) {
            Ok(handed) => {
                entry.hand(handed);
                Ended::HandsOver
            }
            Err(error) => Ended::System(error),
        }
    }

    /// Lets all rings come to rest. The volume stays claimed: no other guest of it is to start.
    fn rest(&mut self) -> Result<(), Ended> {
        let running = self.session.running();
        // First none takes any more, so that what is in flight of all ends at the same time.
        for &index in &running {
            self.change(index, Change::Enable(false))?;
        }
        for index in running {
            let at = self.running[usize::from(index)].take();
            let at = at.ok_or(Ended::Told)?; // it did not get as far as its shard
            // With its connection goes the in-flight region, in which what was put back stands.
            let base = self.stop_now(at)?;
            self.session.rested(index, base);
        }
        Ok(())
    }

    fn into_handed(self, ran: bool, size: u64) -> io::Result<Handed<OwnedFd>> {
        let file = |map: &SharedMap| map.file().map(|(file, ..)| file);
        let parts = self.memory.parts();
        let memory = self.session.regions().iter().map(|region| {
            let part = parts.iter().find(|(guest, _)| *guest == region.guest);
            let (_, part) = part.ok_or(io::ErrorKind::NotFound)?;
            Ok((*region, file(part)?))
        });
        let log = self.log.as_ref().map(|log| {
            let (file, offset, len) = log.map().file()?;
            io::Result::Ok((len, offset, file))
        });
        let inflight = self.inflight.as_ref();
        let inflight = inflight.map(|(area, map)| io::Result::Ok((*area, file(map)?)));
        let beside = Beside {
            memory: memory.collect::<io::Result<_>>()?,
            log: log.transpose()?,
            inflight: inflight.transpose()?,
            channel: self.channel.map(|channel| channel.into_file()),
        };
        Ok(Handed {
            guest: self.entry.key,
            volume: self.entry.volume,
            size,
            ran,
            socket: self.stream.into_file(),
            told: self.session.retell(beside),
        })
    }
}
