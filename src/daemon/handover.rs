//! Guests' connections on their way from one process to the next: packed into descriptors with names, which are inherited
//! over an exec or kept by the service manager meanwhile, and unpacked by the next.
//!
//! What tells of the connections goes last: where it is missing the rest is of no use, and is closed. A guest whose
//! connection is closed connects again, as after a crash, and what was in flight is found in its in-flight region.

use crate::base::Time;
use crate::frontend::vhost_user::{Handed, read_handed, write_handed};
use crate::io::{
    Inherited, Parcel, catch_up, clock, forget_descriptor, has_service_manager, keep_descriptor,
    sealed, unsealed,
};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What tells of the connections; the files are called so with a dot and their number behind.
const NAME: &str = "sarsen.handover";
/// How long the service manager may take to read what it is to keep.
const KEEP_MAX: Duration = Duration::from_secs(1);

/// The connections as descriptors; `stopped` is when their rings were.
pub(super) fn pack(handed: Vec<Handed<OwnedFd>>, stopped: Time) -> io::Result<Vec<Inherited>> {
    let mut parcel = Parcel::default();
    let numbered = handed
        .into_iter()
        .map(|handed| handed.with_files(|file| parcel.add(file)));
    let numbered: Vec<Handed<u32>> = numbered.collect::<io::Result<_>>()?;
    let fd = sealed(NAME, &write_handed(stopped, &numbered))?;
    let files = (0..).zip(parcel.into_files());
    let mut packed: Vec<Inherited> = files
        .map(|(number, fd): (u32, _)| Inherited {
            name: format!("{NAME}.{number}"),
            fd,
        })
        .collect();
    packed.push(Inherited {
        name: NAME.into(),
        fd,
    });
    Ok(packed)
}

/// Has the service manager keep them. They are closed with this process where it does not.
pub(super) fn keep(packed: &[Inherited]) -> io::Result<()> {
    for Inherited { name, fd } in packed {
        keep_descriptor(name, fd)?;
    }
    if !catch_up(KEEP_MAX)? {
        tracing::warn!("systemd is slow: guests may have to connect again");
    }
    Ok(())
}

/// Takes out of what was inherited the connections that the process before left.
pub(super) fn unpack(inherited: &mut Vec<Inherited>) -> Vec<Handed<OwnedFd>> {
    let (mut tells, mut files) = (None, BTreeMap::new());
    let mut kept = Vec::new();
    for Inherited { name, fd } in inherited.drain(..) {
        let number = name
            .strip_prefix(NAME)
            .and_then(|rest| rest.strip_prefix('.'));
        match number.and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => drop(files.insert(number, fd)),
            None if name == NAME => tells = Some(fd),
            None => kept.push(Inherited { name, fd }),
        }
    }
    *inherited = kept;
    if tells.is_none() && files.is_empty() {
        return Vec::new();
    }
    // Before the first message is read: what another process would find there later is not true any more.
    if let Err(error) = forget(files.keys()) {
        tracing::warn!(%error, "systemd could not be told to forget the connections of guests");
    }
    let Some(tells) = tells else {
        tracing::warn!("a hand-over was cut short: guests connect again");
        return Vec::new();
    };
    let told = unsealed(&tells).map_err(|error| error.to_string());
    let told = told.and_then(|bytes| read_handed(&bytes).map_err(|error| error.to_string()));
    let (stopped, numbered) = match told {
        Ok(told) => told,
        Err(why) => {
            tracing::warn!("nothing is taken over, guests connect again: {why}");
            return Vec::new();
        }
    };
    let ms = clock::now().since(stopped).as_millis() as u64;
    tracing::info!(
        guests = numbered.len(),
        ms,
        "guests' connections were handed over; ms since they were stopped"
    );
    let with_files = |handed: Handed<u32>| {
        let guest = handed.guest;
        let file = |number: u32| {
            let file = files.get(&number).ok_or(io::ErrorKind::NotFound)?;
            file.try_clone()
        };
        let whole = handed.with_files(file);
        let lost = |error: &io::Error| {
            tracing::warn!(guest, %error, "a connection was not taken over: a file of it is missing");
        };
        whole.inspect_err(lost).ok()
    };
    numbered.into_iter().filter_map(with_files).collect()
}

fn forget<'a>(files: impl Iterator<Item = &'a u32>) -> io::Result<()> {
    if !has_service_manager() {
        return Ok(());
    }
    forget_descriptor(NAME)?;
    for number in files {
        forget_descriptor(&format!("{NAME}.{number}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::VolumeId;
    use crate::frontend::vhost_user::{HEADER, Header, Told};
    use nix::sys::eventfd::EventFd;
    use std::os::fd::AsFd;

    fn event() -> OwnedFd {
        EventFd::new()
            .unwrap()
            .as_fd()
            .try_clone_to_owned()
            .unwrap()
    }

    fn guest(key: u64) -> Handed<OwnedFd> {
        let mut head = [0; HEADER];
        (head[0], head[4]) = (21, 1);
        let told = Told {
            header: Header::parse(&head).unwrap(),
            body: Vec::new(),
            files: vec![event()],
        };
        Handed {
            guest: key,
            volume: VolumeId(key),
            size: 4096,
            ran: true,
            socket: event(),
            told: vec![told],
        }
    }

    fn other() -> Inherited {
        let name = "sarsen.guest.7".to_owned();
        Inherited { name, fd: event() }
    }

    #[test]
    fn what_is_packed_is_unpacked_and_other_descriptors_stay() {
        let mut packed = pack(vec![guest(1), guest(2)], clock::now()).unwrap();
        packed.push(other());
        // A store gives them in its own order.
        packed.reverse();
        let handed = unpack(&mut packed);
        assert_eq!(handed.iter().map(|h| h.guest).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(packed.len(), 1);
        assert!(unpack(&mut packed).is_empty() && packed.len() == 1);
    }

    #[test]
    fn a_guest_of_which_a_file_is_missing_is_left_out_and_without_what_tells_of_them_all_are() {
        let pack = || pack(vec![guest(1), guest(2)], clock::now()).unwrap();
        let mut packed = pack();
        packed.retain(|fd| fd.name != "sarsen.handover.3");
        let handed = unpack(&mut packed);
        assert_eq!(handed.iter().map(|h| h.guest).collect::<Vec<_>>(), [1]);
        let mut packed = pack();
        packed.pop();
        assert!(unpack(&mut packed).is_empty() && packed.is_empty());
    }
}
