//! The reconciler's stories, with guests and devices that are told what to do.

use super::*;
use crate::api::host::{Host, Parts, Phase, lock};
use crate::api::model::{Attach, AttachmentState, Detach, ErrorCode, FrontEnd};
use crate::base::{StoreId, VolumeId};
use crate::cluster::Cluster;
use crate::manager::Manager;
use crate::protocol::catalog::{Command, Purpose, StoreName};
use crate::runtime::{Config, Guest, GuestState, Runtime};
use crate::trust::Clock;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// What serves guests and makes devices here, and what it was asked for.
#[derive(Default)]
struct Fake {
    guests: Mutex<BTreeMap<u64, OwnedFd>>,
    devices: Mutex<BTreeMap<u64, Device>>,
    /// Why nothing starts.
    broken: Mutex<Option<String>>,
    /// Why nothing ends without force.
    busy: Mutex<Option<String>>,
    resizes: Mutex<Vec<VolumeId>>,
    /// Devices that are not served any more.
    lost: Mutex<Vec<u64>>,
}

impl Fake {
    fn start(&self) -> Result<(), String> {
        lock(&self.broken).clone().map_or(Ok(()), Err)
    }

    fn end(&self, force: bool) -> Result<(), String> {
        match lock(&self.busy).clone() {
            Some(why) if !force => Err(why),
            _ => Ok(()),
        }
    }
}

impl Guests for Fake {
    fn serve(&self, guest: Guest) -> Work<'_, Result<(), String>> {
        let started = self.start();
        if started.is_ok() {
            lock(&self.guests).insert(guest.key, guest.listener);
        }
        Box::pin(async { started })
    }

    fn end(&self, key: u64, force: bool) -> Work<'_, Result<(), String>> {
        let ended = Fake::end(self, force);
        if ended.is_ok() {
            lock(&self.guests).remove(&key);
        }
        Box::pin(async { ended })
    }

    fn state(&self, key: u64) -> Option<GuestState> {
        lock(&self.guests).get(&key).map(|_| GuestState::Listening)
    }
}

impl Devices for Fake {
    fn best_kind(&self) -> Result<DeviceKind, String> {
        Ok(DeviceKind::Nbd)
    }

    fn start(&self, device: Device) -> Work<'_, Result<Started, String>> {
        let number = device.number.unwrap_or(7);
        let started = Fake::start(self).map(|()| Started {
            number,
            path: format!("/dev/nbd{number}").into(),
        });
        if started.is_ok() {
            lock(&self.lost).retain(|key| *key != device.key);
            lock(&self.devices).insert(device.key, device);
        }
        Box::pin(async { started })
    }

    fn stop(&self, key: u64, force: bool) -> Work<'_, Result<(), String>> {
        let ended = Fake::end(self, force);
        if ended.is_ok() {
            lock(&self.devices).remove(&key);
        }
        Box::pin(async { ended })
    }

    fn resized(&self, volume: VolumeId) -> Work<'_, Result<(), String>> {
        lock(&self.resizes).push(volume);
        let told = Fake::start(self);
        Box::pin(async { told })
    }

    fn is_lost(&self, key: u64) -> bool {
        lock(&self.lost).contains(&key)
    }
}

struct World {
    folder: PathBuf,
    fake: Arc<Fake>,
    manager: Manager,
    runtime: Runtime,
    host: Host,
}

impl World {
    fn socket(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The daemon again, after it has died: everything is new but the catalog and the folder.
    fn born_again(&mut self) {
        self.fake = Arc::default();
        self.host = host(&self.folder, &self.manager, &self.runtime, &self.fake);
    }

    fn one(&self) -> crate::api::model::Attachment {
        let list = self.host.attachments().attachments;
        assert_eq!(list.len(), 1, "{list:?}");
        list[0].clone()
    }

    fn alerts(&self) -> Vec<String> {
        let alerts = self.host.alerts().list();
        alerts.into_iter().map(|alert| alert.name).collect()
    }
}

fn host(folder: &std::path::Path, manager: &Manager, runtime: &Runtime, fake: &Arc<Fake>) -> Host {
    let host = Host::new(Parts {
        manager: manager.clone(),
        runtime: runtime.handle(),
        registry: Arc::default(),
        pilot: None,
        cluster: Cluster::open(None, folder, Clock::system()).unwrap(),
        name: "a".into(),
        node: manager.catalog().nodes().next().unwrap().id,
        nbd_socket: "/run/sarsen/nbd.sock".into(),
        overlay_bytes: 16 << 20,
        front_ends: FrontEnds {
            guests: fake.clone(),
            devices: fake.clone(),
            sockets: Sockets::new(&folder.join("made"), 0o600, None, Vec::new()),
            handed: HandedOver::default(),
        },
    });
    host.set_phase(Phase::Serving);
    host
}

fn world<F: Future<Output = World>>(name: &str, story: impl FnOnce(World) -> F) {
    let folder = std::env::temp_dir().join(format!("sarsen-at-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let tokio = tokio::runtime::Builder::new_current_thread();
    let tokio = { tokio }.enable_all().build().unwrap();
    tokio.block_on(async {
        let manager = Manager::open(folder.join("catalog")).await.unwrap();
        let node = Command::AddNode { name: "a".into() };
        manager.propose(node).await.unwrap();
        let disk = Command::AddDisk {
            node: manager.catalog().nodes().next().unwrap().id,
            path: "/nonexistent/disk0".into(),
            store: StoreName(StoreId([1; 16])),
            size: 1 << 30,
            pool: None,
            incarnation: crate::protocol::membership::Incarnation(0),
        };
        manager.propose(disk).await.unwrap();
        for name in ["a", "b"] {
            let create = Command::CreateVolume {
                name: name.into(),
                size: 1 << 20,
                block_size: 4096,
                purpose: Purpose::Use,
                pool: None,
                locality: crate::protocol::catalog::Locality::Spread,
            };
            manager.propose(create).await.unwrap();
        }
        let fake = Arc::default();
        // A ring that ends leaves its memory mapped, and all tests are one process.
        let config = Config {
            buffer_bytes: 64 << 20,
            ..Config::default()
        };
        let runtime = Runtime::start(config, Arc::default()).unwrap();
        let host = host(&folder, &manager, &runtime, &fake);
        let world = World {
            folder: folder.clone(),
            fake,
            manager,
            runtime,
            host,
        };
        story(world).await.runtime.stop();
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

fn guest(socket: &str) -> Attach {
    Attach {
        front_end: FrontEnd::VhostUser,
        socket: Some(socket.into()),
        queues: None,
        incoming: false,
        take_over: false,
    }
}

fn device() -> Attach {
    Attach {
        front_end: FrontEnd::Device,
        socket: None,
        queues: Some(2),
        incoming: false,
        take_over: false,
    }
}

const FORCE: Detach = Detach {
    force: true,
    incoming: false,
};

#[test]
fn a_guest_s_socket_is_there_while_it_is_attached_and_no_longer() {
    world("there", |world| async {
        let socket = world.socket("s");
        let attached = world.host.attach("a", guest(&socket)).await.unwrap();
        assert_eq!(
            (attached.state, attached.queues),
            (AttachmentState::Listening, 1)
        );
        UnixStream::connect(&socket).unwrap();
        world.host.detach("a", Detach::default()).await.unwrap();
        assert!(!std::fs::exists(&socket).unwrap());
        assert!(world.host.attachments().attachments.is_empty());
        assert!(lock(&world.fake.guests).is_empty());
        let again = world.host.detach("a", Detach::default()).await.unwrap_err();
        assert_eq!(again.code, ErrorCode::Conflict);
        world
    });
}

#[test]
fn a_socket_without_a_path_is_made_in_the_folder_of_the_configuration() {
    world("folder", |world| async {
        let wanted = Attach {
            socket: None,
            ..guest("")
        };
        let attached = world.host.attach("a", wanted).await.unwrap();
        let expected = world.socket("made/a.sock");
        assert_eq!(attached.path.as_deref(), Some(expected.as_str()));
        UnixStream::connect(&expected).unwrap();
        world
    });
}

#[test]
fn what_cannot_be_started_is_not_attached_and_leaves_nothing_behind() {
    world("back", |world| async {
        let socket = world.socket("s");
        *lock(&world.fake.broken) = Some("load the module".into());
        for wanted in [guest(&socket), device()] {
            let error = world.host.attach("a", wanted).await.unwrap_err();
            assert!(error.message.contains("load the module"), "{error}");
        }
        assert!(!std::fs::exists(&socket).unwrap());
        assert!(world.host.attachments().attachments.is_empty());
        assert_eq!(world.manager.catalog().attachments().count(), 0);
        assert!(world.alerts().is_empty());
        *lock(&world.fake.broken) = None;
        world.host.attach("a", guest(&socket)).await.unwrap();
        world
    });
}

#[test]
fn a_path_where_something_is_stays_as_it_was() {
    world("exists", |world| async {
        let socket = world.socket("file");
        std::fs::write(&socket, "precious").unwrap();
        let error = world.host.attach("a", guest(&socket)).await.unwrap_err();
        assert_eq!(
            (error.code, error.field.as_str()),
            (ErrorCode::Conflict, "socket")
        );
        assert_eq!(std::fs::read(&socket).unwrap(), b"precious");
        let inherited = world.host.attach("a", guest("fd:vm1")).await.unwrap_err();
        assert!(
            inherited.message.contains("inherited no sockets"),
            "{inherited}"
        );
        assert_eq!(world.manager.catalog().attachments().count(), 0);
        world
    });
}

#[test]
fn after_a_crash_everything_is_taken_up_again() {
    world("again", |mut world| async {
        let socket = world.socket("s");
        world.host.attach("a", guest(&socket)).await.unwrap();
        world.host.attach("b", device()).await.unwrap();
        world.born_again();
        world.host.take_up_attachments().await;
        UnixStream::connect(&socket).unwrap();
        let list = world.host.attachments().attachments;
        let states: Vec<_> = list.iter().map(|one| one.state).collect();
        assert_eq!(
            states,
            [AttachmentState::Listening, AttachmentState::Serving]
        );
        assert_eq!(list[1].path.as_deref(), Some("/dev/nbd7"));
        // The number that it had is asked for again.
        assert_eq!(lock(&world.fake.devices)[&2].number, Some(7));
        assert!(world.alerts().is_empty());
        world
    });
}

#[test]
fn what_cannot_be_taken_up_is_an_alert_until_it_can() {
    world("alert", |mut world| async {
        let socket = world.socket("s");
        world.host.attach("a", guest(&socket)).await.unwrap();
        world.born_again();
        *lock(&world.fake.broken) = Some("no memory".into());
        world.host.take_up_attachments().await;
        assert_eq!(world.alerts(), ["attachment-failed"]);
        assert_eq!(world.one().state, AttachmentState::Failed);
        assert_eq!(world.host.status().failed_attachments, 1);
        world.host.look_after_attachments().await;
        assert_eq!(world.alerts(), ["attachment-failed"]);
        *lock(&world.fake.broken) = None;
        world.host.look_after_attachments().await;
        assert!(world.alerts().is_empty());
        assert_eq!(world.one().state, AttachmentState::Listening);
        world
    });
}

#[test]
fn a_guest_that_the_shards_have_lost_is_served_again() {
    world("lost", |world| async {
        let socket = world.socket("s");
        world.host.attach("a", guest(&socket)).await.unwrap();
        lock(&world.fake.guests).clear();
        assert_eq!(world.one().state, AttachmentState::Failed);
        world.host.look_after_attachments().await;
        assert_eq!(world.one().state, AttachmentState::Listening);
        UnixStream::connect(&socket).unwrap();
        world.host.attach("b", device()).await.unwrap();
        lock(&world.fake.lost).push(2);
        world.host.look_after_attachments().await;
        let list = world.host.attachments().attachments;
        assert_eq!(list[1].state, AttachmentState::Serving);
        world
    });
}

#[test]
fn what_is_in_use_is_detached_only_by_force() {
    world("force", |world| async {
        let socket = world.socket("s");
        world.host.attach("a", guest(&socket)).await.unwrap();
        world.host.attach("b", device()).await.unwrap();
        *lock(&world.fake.busy) = Some("a driver uses it".into());
        for name in ["a", "b"] {
            let error = world
                .host
                .detach(name, Detach::default())
                .await
                .unwrap_err();
            assert_eq!(error.code, ErrorCode::Conflict);
            assert!(error.hint.contains("--force"), "{error}");
        }
        assert_eq!(world.host.attachments().attachments.len(), 2);
        for name in ["a", "b"] {
            world.host.detach(name, FORCE).await.unwrap();
        }
        assert!(world.host.attachments().attachments.is_empty());
        world
    });
}

#[test]
fn what_never_worked_can_be_detached() {
    world("never", |mut world| async {
        world.host.attach("b", device()).await.unwrap();
        world.born_again();
        *lock(&world.fake.broken) = Some("gone".into());
        *lock(&world.fake.busy) = Some("there is no such device".into());
        world.host.take_up_attachments().await;
        world.host.detach("b", Detach::default()).await.unwrap();
        assert!(world.host.attachments().attachments.is_empty());
        assert!(world.alerts().is_empty());
        world
    });
}

#[test]
fn a_guest_migrates_to_the_incoming_socket() {
    world("incoming", |world| async {
        let (first, second) = (world.socket("s1"), world.socket("s2"));
        world.host.attach("a", guest(&first)).await.unwrap();
        let incoming = Attach {
            incoming: true,
            take_over: false,
            ..guest(&second)
        };
        world.host.attach("a", incoming.clone()).await.unwrap();
        let take_back = Detach {
            incoming: true,
            force: false,
        };
        world.host.detach("a", take_back).await.unwrap();
        UnixStream::connect(&first).unwrap();
        assert!(!std::fs::exists(&second).unwrap());
        world.host.attach("a", incoming).await.unwrap();
        world.host.detach("a", Detach::default()).await.unwrap();
        UnixStream::connect(&second).unwrap();
        let left = world.one();
        assert_eq!(
            (left.path.as_deref(), left.incoming),
            (Some(second.as_str()), false)
        );
        world
    });
}

#[test]
fn the_kernel_s_nbd_has_one_connection_and_more_are_refused() {
    world("one-connection", |world| async {
        let more = Attach {
            front_end: FrontEnd::Nbd,
            ..device()
        };
        let refused = world.host.attach("b", more).await.unwrap_err();
        assert_eq!(refused.field, "queues");
        let attached = world.host.attach("b", device()).await.unwrap();
        assert_eq!((attached.front_end, attached.queues), (FrontEnd::Nbd, 1));
        world
    });
}

#[test]
fn a_device_that_was_not_told_of_a_size_is_told_until_it_listens() {
    world("resize", |world| async {
        world.host.attach("b", device()).await.unwrap();
        *lock(&world.fake.broken) = Some("busy".into());
        let volume = VolumeId(2);
        let catalog = world.manager.catalog();
        world.host.resized_attachment(&catalog, volume).await;
        assert_eq!(world.alerts(), ["device-not-resized"]);
        *lock(&world.fake.broken) = None;
        world.host.look_after_attachments().await;
        assert!(world.alerts().is_empty());
        assert_eq!(*lock(&world.fake.resizes), [volume, volume]);
        world.host.look_after_attachments().await;
        assert_eq!(lock(&world.fake.resizes).len(), 2);
        world
    });
}

#[test]
fn a_socket_that_the_service_manager_kept_is_served_again() {
    world("kept", |mut world| async {
        let socket = world.socket("s");
        world.host.attach("a", guest(&socket)).await.unwrap();
        // It comes back with the next process; a guest that connected in between waits in its queue.
        let listener = lock(&world.fake.guests).remove(&1).unwrap();
        let inode =
            |path: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&socket);
        let name = "sarsen.guest.1".to_owned();
        let gone = std::os::unix::net::UnixListener::bind(world.socket("gone")).unwrap();
        let others = crate::io::Inherited {
            name: "sarsen.guest.9".into(),
            fd: gone.into(),
        };
        world.fake = Arc::default();
        let kept = crate::io::Inherited { name, fd: listener };
        let parts = Sockets::new(&world.folder, 0o600, None, vec![kept, others]);
        world.host = Host::new(Parts {
            front_ends: FrontEnds {
                guests: world.fake.clone(),
                devices: world.fake.clone(),
                sockets: parts,
                handed: HandedOver::default(),
            },
            manager: world.manager.clone(),
            pilot: None,
            cluster: Cluster::open(None, &world.folder, Clock::system()).unwrap(),
            name: "a".into(),
            runtime: world.runtime.handle(),
            registry: Arc::default(),
            node: world.manager.catalog().nodes().next().unwrap().id,
            nbd_socket: "/run/sarsen/nbd.sock".into(),
            overlay_bytes: 16 << 20,
        });
        world.host.take_up_attachments().await;
        assert_eq!(inode(&socket), before, "the same socket, not a new one");
        UnixStream::connect(&socket).unwrap();
        // One whose attachment ended in a crash goes.
        assert!(!std::fs::exists(world.socket("gone")).unwrap());
        world
    });
}
