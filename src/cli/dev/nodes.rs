//! Several nodes: a daemon each, as processes of this machine that speak over loopback, watched from here.
//!
//! This process serves nothing. It may end in any way, and its daemons with it; they may end in any way, and it starts them again.

use super::place::Place;
use super::process::{DEAD_FOR, Process};
use super::set_up::{COPIES, NEXT, set_up};
use crate::api::client::Client;
use crate::api::host::nbd_uri;
use crate::api::model::ErrorBody;
use crate::cli::Failure;
use crate::cli::output::{say, table};
use crate::daemon::{Config, ConfigError};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal as Arrival, SignalKind, signal};

/// How often it is looked after the daemons.
const TURN: Duration = Duration::from_millis(200);
/// How long they may take to stop; each limits itself to less.
const STOP_MAX: Duration = Duration::from_secs(15);
/// How long a daemon that was killed a moment ago may take to end: until the kernel has closed what it had, it seems to answer.
const END_MAX: Duration = Duration::from_secs(3);
/// The sockets of the first node that are this folder's as well.
const SOCKETS: [&str; 2] = ["api.sock", "nbd.sock"];

/// What there is to be.
#[derive(Debug)]
pub(super) struct Nodes {
    pub data: PathBuf,
    pub count: u8,
    /// Of the disk of each, in bytes.
    pub size: u64,
    pub shards: usize,
    /// Payload memory of each, in bytes.
    pub memory: u64,
    /// Whether one that died is started again.
    pub restart: bool,
}

impl Nodes {
    fn places(&self) -> Vec<Place> {
        let numbers = 1..=self.count;
        numbers
            .map(|number| Place::of(&self.data, number))
            .collect()
    }

    pub fn run(self) -> Result<(), Failure> {
        let mut places = self.places();
        make_folder(&self.data)?;
        let _lock = lock(&self.data)?;
        for place in &mut places {
            is_free(place)?;
            place.make(&self)?;
            valid(place)?;
            place.mark_log();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::local("the runtime cannot start", error))?;
        runtime.block_on(self.live(&places))
    }

    async fn live(&self, places: &[Place]) -> Result<(), Failure> {
        // From here on they are a wish to stop, also in the middle of the start.
        let mut signals = Signals::new()?;
        let mut processes = Vec::new();
        for place in places {
            processes.push(Process::start(place).map_err(Failure::Refused)?);
        }
        let _ = say(&format!(
            "{} daemons start in {}",
            places.len(),
            self.data.display()
        ));
        let begun = tokio::select! {
            name = signals.next() => {
                stop(&mut processes, name, &mut signals).await;
                return Ok(());
            }
            failure = first_end(&mut processes) => Err(failure),
            begun = self.begin(places) => begun,
        };
        let volume = match begun {
            Ok(volume) => volume,
            Err(failure) => {
                stop(&mut processes, "a failed start", &mut signals).await;
                return Err(failure);
            }
        };
        processes.iter_mut().for_each(Process::serves);
        let _ = say(&usage(self, &processes, volume.as_deref()));
        let name = self.watch(&mut processes, &mut signals).await;
        stop(&mut processes, name, &mut signals).await;
        SOCKETS
            .iter()
            .for_each(|socket| unlink(&self.data.join(socket)));
        Ok(())
    }

    /// Until they are a cluster that serves; the name of a volume, where there is one.
    async fn begin(&self, places: &[Place]) -> Result<Option<String>, Failure> {
        set_up(self, places).await?;
        let Some(first) = places.first() else {
            return Ok(None);
        };
        for socket in SOCKETS {
            let at = self.data.join(socket);
            unlink(&at);
            let linked = symlink(Path::new(&first.name).join(socket), &at);
            linked.map_err(|error| Failure::local(at.display(), error))?;
        }
        let volumes = Client::new(&first.api()).volumes().await?.volumes;
        Ok(volumes.into_iter().next().map(|volume| volume.name))
    }

    /// Sees to the daemons until a signal comes; its name.
    async fn watch(&self, processes: &mut [Process], signals: &mut Signals) -> &'static str {
        loop {
            tokio::select! {
                name = signals.next() => return name,
                () = tokio::time::sleep(TURN) => {}
            }
            for process in &mut *processes {
                if let Some(news) = process.look(self.restart).await {
                    // Where nobody reads any more, they go on.
                    let _ = say(&news);
                }
            }
        }
    }
}

/// Whether the daemon would take its configuration: what is wrong with it is known before anything is started.
fn valid(place: &Place) -> Result<(), Failure> {
    let wrong = |error: ConfigError| {
        let hint = "name another value, or another folder with --data";
        Failure::Refused(ErrorBody::invalid("", error.to_string(), hint))
    };
    Config::load(&place.config()).map(|_| ()).map_err(wrong)
}

/// For this user only, as a node's own.
fn make_folder(data: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.map_err(|error| Failure::local(data.display(), error))
}

/// Holds the folder for this process alone.
fn lock(data: &Path) -> Result<Flock<File>, Failure> {
    let at = data.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&at);
    let file = file.map_err(|error| Failure::local(at.display(), error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let folder = data.display();
        let message = match error {
            Errno::EWOULDBLOCK => format!("another `sarsen dev` runs in {folder}"),
            error => format!("{}: {error}", at.display()),
        };
        let hint = "use that one, or name another folder with --data";
        Failure::Refused(ErrorBody::conflict("", message, hint))
    })
}

/// Nobody serves there: a daemon may have been started by hand. Those of a command that was killed just now are waited for.
fn is_free(place: &Place) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < END_MAX {
        if UnixStream::connect(place.api()).is_err() {
            return Ok(());
        }
        std::thread::sleep(TURN / 4);
    }
    let message = format!(
        "{}: a daemon answers at {} already",
        place.name,
        place.api().display()
    );
    let hint = "it was started by hand: end it, and start again";
    Err(Failure::Refused(ErrorBody::conflict("", message, hint)))
}

/// Waits for a daemon to end, which none should during the start.
async fn first_end(processes: &mut [Process]) -> Failure {
    loop {
        for process in &mut *processes {
            if let Some(how) = process.ended() {
                let place = &process.place;
                let message = format!("{}: its daemon {how} during the start", place.name);
                let hint = format!("{NEXT}\n  {}", place.log_end());
                return Failure::Refused(ErrorBody::unavailable(message, &hint));
            }
        }
        tokio::time::sleep(TURN).await;
    }
}

/// Stops all, at once and in good order; what does not end in time, or when it is told again, is killed.
async fn stop(processes: &mut [Process], why: &str, signals: &mut Signals) {
    let _ = say(&format!("{why}: the daemons stop"));
    processes
        .iter_mut()
        .for_each(|one| one.signal(Signal::SIGTERM));
    let begun = Instant::now();
    while begun.elapsed() < STOP_MAX && processes.iter_mut().any(Process::lives) {
        tokio::select! {
            _ = signals.next() => break,
            () = tokio::time::sleep(TURN / 10) => {}
        }
    }
    for process in processes {
        if process.lives() {
            let name = &process.place.name;
            let _ = say(&format!(
                "{name}: still runs, and is killed; nothing is lost by that"
            ));
            process.signal(Signal::SIGKILL);
        }
    }
}

fn unlink(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            eprintln!("sarsen: {}: {error}", path.display());
        }
        _ => {}
    }
}

/// How to use what was started.
fn usage(nodes: &Nodes, processes: &[Process], volume: Option<&str>) -> String {
    let socket = |name: &str| nodes.data.join(name).display().to_string();
    let (api, uri) = (
        socket(SOCKETS[0]),
        nbd_uri(volume.unwrap_or("first"), &socket(SOCKETS[1])),
    );
    let create = match volume {
        None => "  sarsen volume create first --size 1G\n",
        Some(_) => "",
    };
    let rows = processes.iter().map(|process| {
        let place = &process.place;
        let (api, nbd) = (place.api(), place.nbd());
        [
            place.name.clone(),
            process.pid().to_string(),
            api.display().to_string(),
            nbd.display().to_string(),
        ]
    });
    let each = table(["NODE", "PROCESS", "API", "NBD"], rows);
    let kills: String = processes
        .iter()
        .map(|process| format!("  kill -9 {}    # {}\n", process.pid(), process.place.name))
        .collect();
    let then = match nodes.restart {
        true => format!(
            "is started again after {} s, and is filled with what it missed",
            DEAD_FOR.as_secs()
        ),
        false => "stays dead until you start it; how, is said here".into(),
    };
    format!(
        "\nsarsen is ready: {count} nodes.\n\n\
         {each}\n\n\
         In another terminal:\n\
         \x20 export SARSEN_API={api}\n\
         \x20 sarsen status\n\
         \x20 sarsen pool show default\n\
         {create}\n\
         A client opens, by the socket of any node,\n\
         \x20 {uri}\n\
         for example\n\
         \x20 nbdinfo '{uri}'\n\
         \x20 nbdfuse mountpoint '{uri}'\n\n\
         Kill a node while a client writes by another one: with {COPIES} copies I/O goes on without it. It {then}.\n\
         {kills}\n\
         Logs are {data}/nodeK/log. Ctrl-C stops all; everything is found again at the next start.",
        count = processes.len(),
        data = nodes.data.display(),
    )
}

/// The signals that mean "end".
struct Signals {
    all: [(&'static str, Arrival); 3],
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let of = |kind| signal(kind).map_err(|error| Failure::local("signals", error));
        Ok(Signals {
            all: [
                ("SIGTERM", of(SignalKind::terminate())?),
                ("SIGINT", of(SignalKind::interrupt())?),
                ("SIGHUP", of(SignalKind::hangup())?),
            ],
        })
    }

    async fn next(&mut self) -> &'static str {
        let [(term, on_term), (int, on_int), (hup, on_hup)] = &mut self.all;
        tokio::select! {
            _ = on_term.recv() => term,
            _ = on_int.recv() => int,
            _ = on_hup.recv() => hup,
        }
    }
}
