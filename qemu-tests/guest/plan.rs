//! What a guest has: memory, programs, disks, a network. `start` boots it.

use super::initrd::which;
use super::kernel::Which;
use super::{debian, package};
use crate::harness::daemon::{binary, text};
use crate::harness::network::Lan;
use crate::harness::{Room, Step};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A guest to be.
#[derive(Clone)]
pub struct Plan {
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) kernel: Which,
    pub(super) memory_mib: u32,
    pub(super) programs: Vec<(&'static str, PathBuf)>,
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
    pub(super) modules: Vec<&'static str>,
    pub(super) kernel_words: Vec<String>,
    pub(super) arguments: Vec<String>,
    disks: u32,
    pub(super) moves: bool,
    /// The network namespace that QEMU runs in, where that is not this process's.
    pub(super) network: Option<Arc<OwnedFd>>,
}

impl Plan {
    /// A guest with this program as `agent`, busybox, two processors and no disk.
    pub fn new(room: &Room, name: &str) -> Plan {
        Plan {
            folder: room.path(""),
            name: name.to_owned(),
            kernel: Which::Usual,
            memory_mib: 512,
            programs: Vec::new(),
            files: Vec::new(),
            modules: vec!["virtio_blk", "virtio_rng"],
            kernel_words: Vec::new(),
            arguments: Vec::new(),
            disks: 0,
            moves: false,
            network: None,
        }
    }

    /// On the oldest kernel that is supported, 6.1, which has no ublk.
    pub fn oldest_kernel(mut self) -> Plan {
        self.kernel = Which::Oldest;
        // Newer ones have these built in.
        self.modules.splice(0..0, ["virtio_pci", "virtio_console"]);
        self
    }

    /// On a newer kernel than the usual one, 6.18.
    pub fn newer_kernel(mut self) -> Plan {
        self.kernel = Which::Newer;
        self
    }

    pub fn memory(mut self, mib: u32) -> Plan {
        self.memory_mib = mib;
        self
    }

    /// With the daemon that is tested, as `sarsen`, and memory for it.
    pub fn sarsen(self) -> Plan {
        self.program("sarsen", binary()).memory(1024)
    }

    /// With a program of this machine at `/bin/NAME`, and its libraries.
    pub fn program(mut self, name: &'static str, path: PathBuf) -> Plan {
        self.programs.push((name, path));
        self
    }

    /// With programs of this machine, found on the path.
    pub fn tools(mut self, names: &[&'static str]) -> Step<Plan> {
        for name in names {
            self.programs.push((name, which(name)?));
        }
        Ok(self)
    }

    /// With a file.
    pub fn file(mut self, path: &str, bytes: &[u8]) -> Plan {
        self.files.push((path.into(), bytes.to_vec()));
        self
    }

    /// With the distribution's udev, and the project's rules for it.
    pub fn udev(mut self) -> Step<Plan> {
        let root = package::unpacked("udev")?;
        for name in ["udevadm", "systemd-udevd"] {
            // One program, that looks at its name.
            self.programs.push((name, root.join("bin/udevadm")));
        }
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("udev");
        for entry in std::fs::read_dir(rules)?.flatten() {
            let place = Path::new("etc/udev/rules.d").join(entry.file_name());
            self.files.push((place, std::fs::read(entry.path())?));
        }
        Ok(self)
    }

    /// It is to be migrated, so by a QEMU that can do that.
    pub fn moves(mut self) -> Plan {
        self.moves = true;
        self
    }

    /// With a module of the kernel loaded before anything else.
    pub fn module(mut self, name: &'static str) -> Plan {
        self.modules.push(name);
        self
    }

    /// Its root file system is this device.
    pub fn root(mut self, device: &str) -> Plan {
        self.kernel_words.push(format!("sarsen.root={device}"));
        self
    }

    /// It is a Debian host of its own, with systemd, which has the programs and files of this plan in /run/give. What it
    /// changes is kept for as long as the room is there.
    pub fn debian(self, room: &Room) -> Step<Plan> {
        debian::host(self, room)
    }

    /// More arguments for QEMU, as they are.
    pub fn argue(mut self, arguments: &[&str]) -> Plan {
        self.arguments
            .extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    /// The next virtio disk (/dev/vda, vdb, ...) is this: what `-drive` takes, without `if` and `id`.
    pub fn drive(mut self, what: &str) -> Plan {
        let id = format!("disk{}", self.disks);
        self.disks += 1;
        let drive = format!("{what},if=none,id={id}");
        let device = format!("virtio-blk-pci,drive={id},id={id}-dev");
        self.argue(&["-drive", &drive, "-device", &device])
    }

    /// The next virtio disk is what is served by vhost-user-blk at this socket.
    pub fn vhost_user(mut self, socket: &Path, queues: u32) -> Plan {
        let id = format!("disk{}", self.disks);
        self.disks += 1;
        let chardev = format!("socket,id={id},path={},reconnect=1", text(socket));
        let device = format!("vhost-user-blk-pci,chardev={id},num-queues={queues},id={id}-dev");
        self.argue(&["-chardev", &chardev, "-device", &device])
    }

    /// At a network with processes outside.
    pub fn at(mut self, lan: &Lan) -> Plan {
        self.network = Some(lan.namespace());
        let net = format!("tap,ifname={},script=no,downscript=no", Lan::DEVICE);
        self.with_card(&net, Lan::GUEST)
    }

    /// A port of this machine's loopback leads to a port of the guest.
    pub fn network(self, host: u16, guest: u16) -> Plan {
        let net = format!("user,restrict=on,hostfwd=tcp:127.0.0.1:{host}-10.0.2.15:{guest}");
        self.with_card(&net, "10.0.2.15")
    }

    /// With a network card and its address; what `-netdev` takes, without `id`.
    fn with_card(mut self, net: &str, address: &str) -> Plan {
        self.modules.push("virtio_net");
        self.kernel_words.push(format!("sarsen.ip={address}/24"));
        let net = format!("{net},id=net");
        let card = "virtio-net-pci,netdev=net,romfile=";
        self.argue(&["-netdev", &net, "-device", card])
    }
}
