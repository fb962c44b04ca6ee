//! The commands of the family "nbd" (linux/nbd-netlink.h), and how the family is found.

use super::netlink::Message;

/// What the driver's family is called.
pub const FAMILY: &str = "nbd";
/// Its version of the protocol.
const VERSION: u8 = 1;

/// The family that knows the others, its command and its attributes (linux/genetlink.h).
mod control {
    pub const FAMILY: u16 = 16;
    pub const GET_FAMILY: u8 = 3;
    pub const VERSION: u8 = 1;
    pub const ATTR_FAMILY_ID: u16 = 1;
    pub const ATTR_FAMILY_NAME: u16 = 2;
}

mod number {
    pub const CONNECT: u8 = 1;
    pub const DISCONNECT: u8 = 2;
    pub const RECONFIGURE: u8 = 3;
}

mod attribute {
    pub const INDEX: u16 = 1;
    pub const SIZE_BYTES: u16 = 2;
    pub const BLOCK_SIZE_BYTES: u16 = 3;
    pub const TIMEOUT: u16 = 4;
    pub const SERVER_FLAGS: u16 = 5;
    pub const SOCKETS: u16 = 7;
    pub const DEAD_CONN_TIMEOUT: u16 = 8;
    pub const BACKEND_IDENTIFIER: u16 = 10;
    // In SOCKETS.
    pub const SOCK_ITEM: u16 = 1;
    pub const SOCK_FD: u16 = 1;
}

/// What the driver is told that its server can do: HAS_FLAGS, SEND_TRIM, SEND_WRITE_ZEROES. Not CAN_MULTI_CONN: a device has
/// one connection, so that what is sent twice is not overtaken by itself (see the decision page).
///
/// Neither SEND_FLUSH nor SEND_FUA: what is acknowledged is durable, so the device has no cache that could be flushed.
/// The kernel then shows "write through" and answers both itself, which is a round trip less for each of them.
pub const NBD_FLAGS: u64 = 1 << 0 | 1 << 5 | 1 << 6;

/// After so many seconds a request is sent again; a whole second is the least that the driver can be told.
///
/// The driver notices that a socket is dead only for requests that it has not sent yet. One that was in flight waits until
/// this has passed and up to a second more, for the timers of the block layer are that coarse: the pause that a kill costs.
/// Where a live daemon is slower than this, everything in flight is sent twice, so it gets longer then ([`slower`]).
pub const TIMEOUT_S: u64 = 1;
/// The longest that it becomes: the pause of a kill is to stay far below the 30 s of a driver that is told nothing.
const TIMEOUT_MAX_S: u64 = 8;

/// The next longer time-out.
pub fn slower(timeout_s: u64) -> u64 {
    (timeout_s * 2).min(TIMEOUT_MAX_S)
}

/// So long the driver waits for a new socket where all are dead, before requests fail: a daemon that is
/// down is repaired within that, and a file system above sees a pause. Who does not want to wait says
/// `sarsen detach --force` or, without a daemon, `nbd-client -d`.
const DEAD_CONN_TIMEOUT_S: u64 = 24 * 60 * 60;

/// The number that the driver's family has until the next boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family(pub u16);

/// Asks for the number of the driver's family.
pub fn find_family(sequence: u32) -> Vec<u8> {
    let (family, version) = (control::FAMILY, control::VERSION);
    let mut message = Message::new(family, control::GET_FAMILY, version, sequence);
    message.text(control::ATTR_FAMILY_NAME, FAMILY);
    message.finish()
}

/// The number, out of the answer's attributes.
pub fn family_of(attributes: &[(u16, Vec<u8>)]) -> Option<Family> {
    let value = value_of(attributes, control::ATTR_FAMILY_ID)?;
    Some(Family(u16::from_ne_bytes(value.try_into().ok()?)))
}

/// A new device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Which one; the first that is free where none is named.
    pub index: Option<u32>,
    /// In bytes.
    pub size: u64,
    /// The logical block, in bytes.
    pub block_size: u32,
    /// By this a later daemon knows that the device is its own.
    pub backend: &'a str,
    /// The descriptor of the kernel's end of the connection.
    pub socket: i32,
}

impl Connect<'_> {
    pub fn message(&self, family: Family, sequence: u32) -> Vec<u8> {
        let mut message = Message::new(family.0, number::CONNECT, VERSION, sequence);
        if let Some(index) = self.index {
            message.u32(attribute::INDEX, index);
        }
        message.u64(attribute::SIZE_BYTES, self.size);
        message.u64(attribute::BLOCK_SIZE_BYTES, u64::from(self.block_size));
        message.u64(attribute::SERVER_FLAGS, NBD_FLAGS);
        times(&mut message, TIMEOUT_S);
        message.text(attribute::BACKEND_IDENTIFIER, self.backend);
        a_socket(&mut message, self.socket);
        message.finish()
    }
}

/// Which device was connected, out of the answer's attributes.
pub fn connected(attributes: &[(u16, Vec<u8>)]) -> Option<u32> {
    let value = value_of(attributes, attribute::INDEX)?;
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

/// A change of a device that there is: a new socket for one that is dead, a new size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconfigure<'a> {
    pub index: u32,
    /// In bytes, and the logical block; the driver wants both or none.
    pub size: Option<(u64, u32)>,
    /// As it was connected; the driver refuses another one.
    pub backend: &'a str,
    pub timeout_s: u64,
    pub socket: Option<i32>,
}

impl Reconfigure<'_> {
    pub fn message(&self, family: Family, sequence: u32) -> Vec<u8> {
        let mut message = Message::new(family.0, number::RECONFIGURE, VERSION, sequence);
        message.u32(attribute::INDEX, self.index);
        if let Some((size, block_size)) = self.size {
            message.u64(attribute::SIZE_BYTES, size);
            message.u64(attribute::BLOCK_SIZE_BYTES, u64::from(block_size));
        }
        times(&mut message, self.timeout_s);
        message.text(attribute::BACKEND_IDENTIFIER, self.backend);
        if let Some(socket) = self.socket {
            a_socket(&mut message, socket);
        }
        message.finish()
    }
}

/// Ends a device. What is in flight fails.
pub fn disconnect(family: Family, sequence: u32, index: u32) -> Vec<u8> {
    let mut message = Message::new(family.0, number::DISCONNECT, VERSION, sequence);
    message.u32(attribute::INDEX, index);
    message.finish()
}

fn times(message: &mut Message, timeout_s: u64) {
    message.u64(attribute::TIMEOUT, timeout_s);
    message.u64(attribute::DEAD_CONN_TIMEOUT, DEAD_CONN_TIMEOUT_S);
}

/// The list of sockets, with one in it.
fn a_socket(message: &mut Message, socket: i32) {
    message.nest(attribute::SOCKETS, |list| {
        list.nest(attribute::SOCK_ITEM, |item| {
            item.u32(attribute::SOCK_FD, socket.cast_unsigned());
        });
    });
}

fn value_of(attributes: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    let found = attributes.iter().find(|(other, _)| *other == kind)?;
    Some(&found.1)
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn the_question_for_the_family_is_as_the_kernel_reads_it() {
        let wanted = [
            &[28, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0][..], // header: request, acknowledge
            &[3, 1, 0, 0],                                           // GETFAMILY
            &[8, 0, 2, 0, b'n', b'b', b'd', 0],                      // FAMILY_NAME
        ];
        assert_eq!(find_family(7), wanted.concat());
        let answered = [(2, b"nbd\0".to_vec()), (1, vec![0x21, 0])];
        assert_eq!(family_of(&answered), Some(Family(0x21)));
        assert_eq!(family_of(&answered[..1]), None);
        assert_eq!(family_of(&[(1, vec![1])]), None);
    }

    #[test]
    fn a_connect_is_as_the_kernel_reads_it() {
        let connect = Connect {
            index: Some(3),
            size: 0x1_0000_0000,
            block_size: 512,
            backend: "s",
            socket: 9,
        };
        let wanted = [
            &[128, 0, 0, 0, 0x21, 0, 5, 0, 8, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 1, 0, 0],                                // CONNECT
            &[8, 0, 1, 0, 3, 0, 0, 0],                    // INDEX
            &[12, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0],       // SIZE_BYTES
            &[12, 0, 3, 0, 0, 2, 0, 0, 0, 0, 0, 0],       // BLOCK_SIZE_BYTES
            &[12, 0, 5, 0, 0x61, 0, 0, 0, 0, 0, 0, 0],    // SERVER_FLAGS
            &[12, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0],       // TIMEOUT
            &[12, 0, 8, 0, 0x80, 0x51, 1, 0, 0, 0, 0, 0], // DEAD_CONN_TIMEOUT
            &[6, 0, 10, 0, b's', 0, 0, 0],                // BACKEND_IDENTIFIER
            &[16, 0, 7, 0x80],                            // SOCKETS
            &[12, 0, 1, 0x80, 8, 0, 1, 0, 9, 0, 0, 0],    // SOCK_ITEM, SOCK_FD
        ]
        .concat();
        let message = connect.message(Family(0x21), 8);
        assert_eq!(usize::from(message[0]), message.len());
        assert_eq!(message[16..], wanted[16..]);
        assert_eq!(connected(&[(1, vec![3, 0, 0, 0])]), Some(3));
    }

    #[test]
    fn a_new_size_goes_without_a_socket_and_a_new_socket_without_a_size() {
        let resize = Reconfigure {
            index: 1,
            size: Some((4096, 4096)),
            backend: "sarsen",
            timeout_s: 4,
            socket: None,
        };
        let message = resize.message(Family(0x21), 1);
        let wanted = [
            &[3, 1, 0, 0][..],
            &[8, 0, 1, 0, 1, 0, 0, 0],
            &[12, 0, 2, 0, 0, 16, 0, 0, 0, 0, 0, 0],
            &[12, 0, 3, 0, 0, 16, 0, 0, 0, 0, 0, 0],
            &[12, 0, 4, 0, 4, 0, 0, 0, 0, 0, 0, 0],
            &[12, 0, 8, 0, 0x80, 0x51, 1, 0, 0, 0, 0, 0],
            &[11, 0, 10, 0, b's', b'a', b'r', b's', b'e', b'n', 0, 0],
        ];
        assert_eq!(message[16..], wanted.concat());
        let socket = Reconfigure {
            size: None,
            socket: Some(5),
            ..resize
        };
        let message = socket.message(Family(0x21), 1);
        let wanted = [
            16, 0, 7, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 5, 0, 0,
            0, // SOCKETS, SOCK_ITEM, SOCK_FD
        ];
        assert!(message.ends_with(&wanted));
        assert_eq!(message.len(), 16 + 4 + 8 + 24 + 12 + 16);
    }

    #[test]
    fn a_daemon_that_was_too_slow_is_given_more_time_but_not_for_ever() {
        let longer = std::iter::successors(Some(TIMEOUT_S), |&timeout| Some(slower(timeout)));
        assert_eq!(longer.take(6).collect::<Vec<_>>(), [1, 2, 4, 8, 8, 8]);
    }

    #[test]
    fn a_disconnect_names_its_device() {
        let message = disconnect(Family(0x21), 2, 4);
        assert_eq!(message[16..], [2, 1, 0, 0, 8, 0, 1, 0, 4, 0, 0, 0]);
    }
}
