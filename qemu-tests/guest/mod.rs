//! Guests: a small Linux under QEMU, booted in seconds from nothing but a kernel and an initrd.
//!
//! ```text
//!   case ── Plan ── Guest ─┬─ talk ── virtio-serial ── inside::agent ── sh, fio, sarsen, load ── a disk
//!                          ├─ qmp (hot plug, migration, quit)
//!                          └─ NAME.console.log
//!   kernel (Debian's cloud kernel, by apt) ── initrd (busybox, modules, this program, libraries)
//! ```
//!
//! Everything that is made for it is kept below `target/guest/`. QEMU ends with the `Guest`, however the case ends.

pub mod daemon;
mod debian;
mod initrd;
mod inside;
mod kernel;
mod package;
mod qmp;
pub mod talk;
pub mod try_out;

pub use initrd::which;
pub use inside::forward;
pub use inside::run as run_inside;

use crate::harness::daemon::{binary, text};
use crate::harness::{Room, Step, ensure};
use qmp::Qmp;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use talk::{Ask, Said, Talk};

/// From QEMU's start to the first answer. A boot takes some seconds, unless the machine is busy.
const BOOT_MAX: Duration = Duration::from_secs(120);
/// What a command may take where nothing else is said.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// Where what is made for guests is kept.
fn cache() -> Step<PathBuf> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guest");
    std::fs::create_dir_all(&cache)?;
    Ok(cache)
}

/// Tree and tools of a root file system, as an ext4 image of so many MiB. In blocks of 4 KiB, as it may lie on a disk of such sectors.
pub fn root_image(to: &Path, mib: u64, programs: &[(&str, PathBuf)]) -> Step<()> {
    let tree = to.with_extension("tree");
    initrd::unpack(&tree, &kernel::get()?, &with_ours(programs)?)?;
    let (tree_name, image) = (text(&tree), text(to));
    let arguments = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-d",
        &tree_name,
        &image,
        &format!("{mib}M"),
    ];
    let made = crate::harness::tools::run("mkfs.ext4", &arguments);
    std::fs::remove_dir_all(&tree)?;
    made.map(|_| ())
}

fn with_ours(programs: &[(&str, PathBuf)]) -> Step<Vec<(String, PathBuf)>> {
    let mut all = vec![("agent".to_owned(), std::env::current_exe()?)];
    all.extend(
        programs
            .iter()
            .map(|(name, path)| (String::from(*name), path.clone())),
    );
    Ok(all)
}

/// A TCP port of the loopback that nobody uses.
pub fn free_port() -> Step<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// A guest to be.
#[derive(Clone)]
pub struct Plan {
    folder: PathBuf,
    name: String,
    memory_mib: u32,
    programs: Vec<(&'static str, PathBuf)>,
    files: Vec<(PathBuf, Vec<u8>)>,
    modules: Vec<&'static str>,
    kernel_words: Vec<String>,
    arguments: Vec<String>,
    disks: u32,
}

impl Plan {
    /// A guest with this program as `agent`, busybox, two processors and no disk.
    pub fn new(room: &Room, name: &str) -> Plan {
        Plan {
            folder: room.path(""),
            name: name.to_owned(),
            memory_mib: 512,
            programs: Vec::new(),
            files: Vec::new(),
            modules: vec!["virtio_blk", "virtio_rng"],
            kernel_words: Vec::new(),
            arguments: Vec::new(),
            disks: 0,
        }
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

    /// A port of this machine's loopback leads to a port of the guest.
    pub fn network(mut self, host: u16, guest: u16) -> Plan {
        self.modules.push("virtio_net");
        self.kernel_words.push("sarsen.ip=10.0.2.15/24".into());
        let net = format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{host}-10.0.2.15:{guest}");
        self.argue(&[
            "-netdev",
            &net,
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
        ])
    }

    /// Starts it and waits until it answers.
    pub fn boot(&self) -> Step<Guest> {
        let mut guest = self.start(accelerator()?, &[])?;
        guest.hello(BOOT_MAX)?;
        Ok(guest)
    }

    /// Starts QEMU to wait for the state of another one, which comes by this socket.
    pub fn boot_incoming(&self, socket: &Path) -> Step<Guest> {
        let from = format!("unix:{}", text(socket));
        self.start(accelerator()?, &["-incoming", &from])
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", self.name))
    }

    fn start(&self, accelerator: &str, more: &[&str]) -> Step<Guest> {
        let kernel = kernel::get()?;
        let initrd = self.path("initrd");
        initrd::write(&initrd, &kernel, &with_ours(&self.programs)?, &self.files)?;
        let (talk, qmp) = (self.path("talk"), self.path("qmp"));
        let log = File::create(self.path("qemu.log"))?;
        let words = format!(
            "console=ttyS0 quiet panic=-1 oops=panic random.trust_cpu=on sarsen.modules={} {}",
            self.modules.join(","),
            self.kernel_words.join(" ")
        );
        let mut command = Command::new("qemu-system-x86_64");
        command.args(accelerator.split(' '));
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ]);
        command.args(["-machine", "pc,memory-backend=ram", "-smp", "2"]);
        let size = format!("{}M", self.memory_mib);
        command.args(["-m", &size, "-object"]);
        command.arg(format!("memory-backend-memfd,id=ram,size={size},share=on"));
        command
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initrd);
        command.args(["-append", &words]);
        command.args([
            "-serial",
            &format!("file:{}", text(&self.path("console.log"))),
        ]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", text(&qmp))]);
        command.args([
            "-device",
            "virtio-rng-pci",
            "-device",
            "virtio-serial-pci",
            "-chardev",
        ]);
        command.arg(format!(
            "socket,id=talk,path={},server=on,wait=off",
            text(&talk)
        ));
        command.args(["-device", "virtserialport,chardev=talk,name=sarsen.talk"]);
        command.args(&self.arguments).args(more);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // SAFETY: a system call that is safe between fork and exec. QEMU ends with this process, even where that is killed.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command
            .spawn()
            .map_err(|e| format!("qemu-system-x86_64: {e}"))?;
        let mut child = Running(child);
        let begun = Instant::now();
        let (talk, qmp) = loop {
            if let Some(status) = child.0.try_wait()? {
                let said = std::fs::read_to_string(self.path("qemu.log"))?;
                return Err(format!("QEMU ended at its start: {status}: {said}").into());
            }
            if let (Ok(opened), Ok(qmp)) = (Talk::open(&talk), Qmp::open(&qmp)) {
                break (opened, qmp);
            }
            ensure!(
                begun.elapsed() < BOOT_MAX,
                "QEMU makes no sockets within {BOOT_MAX:?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        Ok(Guest {
            plan: self.clone(),
            child,
            talk,
            qmp,
            jobs: 0,
        })
    }
}

/// The file that ends a load on a device.
fn enough(device: &str) -> String {
    format!(
        "/run/enough-{}",
        device.rsplit('/').next().unwrap_or_default()
    )
}

/// How QEMU runs a guest here: `-accel kvm` where a Linux guest really answers under it, which is tried once a boot of
/// this machine; else TCG, which always works. On one thread: with one a processor, QEMU 7.2 now and then lets a processor
/// run into the breakpoint by which the kernel patches its own code (`Oops: int3`).
fn accelerator() -> Step<&'static str> {
    const TCG: &str = "-accel tcg,thread=single -cpu max";
    const KVM: &str = "-accel kvm -cpu host";
    if File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(TCG);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let known = cache()?.join(format!("accelerator-{}", boot.trim()));
    let runs = match std::fs::read_to_string(&known) {
        Ok(text) => text == KVM,
        Err(_) => {
            let room = Room::new("accelerator")?;
            let answers = Plan::new(&room, "kvm").start(KVM, &[]);
            let answers = answers.and_then(|mut guest| guest.hello(Duration::from_secs(15)));
            std::fs::write(&known, if answers.is_ok() { KVM } else { TCG })?;
            answers.is_ok()
        }
    };
    Ok(if runs { KVM } else { TCG })
}

/// A QEMU, killed at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A guest that runs.
pub struct Guest {
    plan: Plan,
    child: Running,
    talk: Talk,
    pub qmp: Qmp,
    jobs: u64,
}

/// A command that runs in the guest.
pub struct Job {
    number: u64,
    fetched: u64,
    pub out: String,
    pub exit: Option<i32>,
}

impl Guest {
    fn hello(&mut self, within: Duration) -> Step<()> {
        let said = self.talk.ask(Ask::Hello, within);
        said.map(|_| ())
            .map_err(|why| format!("guest {} did not boot: {why}", self.plan.name).into())
    }

    /// Runs a shell command that must succeed; what it printed.
    pub fn run(&mut self, script: &str) -> Step<String> {
        let (code, out) = self.attempt(script, COMMAND_MAX)?;
        ensure!(code == 0, "in the guest: {script}: exit {code}: {out}");
        Ok(out)
    }

    /// Runs a shell command: its exit code, and what it printed.
    pub fn attempt(&mut self, script: &str, within: Duration) -> Step<(i32, String)> {
        let mut job = self.begin(script)?;
        let code = self.wait(&mut job, within)?;
        Ok((code, job.out))
    }

    /// Begins a shell command.
    pub fn begin(&mut self, script: &str) -> Step<Job> {
        self.jobs += 1;
        let number = self.jobs;
        let ask = Ask::Start {
            job: number,
            script: script.to_owned(),
        };
        self.ask(ask)?;
        Ok(Job {
            number,
            fetched: 0,
            out: String::new(),
            exit: None,
        })
    }

    fn ask(&mut self, ask: Ask) -> Step<Said> {
        match self.talk.ask(ask, COMMAND_MAX)? {
            Said::Refused(why) => Err(format!("in the guest: {why}").into()),
            said => Ok(said),
        }
    }

    /// Fetches what a job has said since the last look.
    pub fn look(&mut self, job: &mut Job) -> Step<()> {
        let ask = Ask::Poll {
            job: job.number,
            from: job.fetched,
            wait_ms: 200,
        };
        if let Said::State { exit, out, next } = self.ask(ask)? {
            job.out.push_str(&out);
            job.fetched = next;
            job.exit = exit;
        }
        Ok(())
    }

    /// Waits for the end of a job; its exit code.
    pub fn wait(&mut self, job: &mut Job, within: Duration) -> Step<i32> {
        let begun = Instant::now();
        loop {
            self.look(job)?;
            if let Some(code) = job.exit {
                return Ok(code);
            }
            if begun.elapsed() > within {
                self.signal(job, libc::SIGKILL)?;
                return Err(format!(
                    "a command still runs in the guest after {within:?}: {}",
                    job.out
                )
                .into());
            }
        }
    }

    /// Sends a signal to a job and its children.
    pub fn signal(&mut self, job: &Job, signal: i32) -> Step<()> {
        let job = job.number;
        self.ask(Ask::Signal { job, signal })?;
        Ok(())
    }

    /// Waits until a job has said something.
    pub fn wait_for(&mut self, job: &mut Job, word: &str, within: Duration) -> Step<()> {
        let begun = Instant::now();
        while !job.out.contains(word) {
            self.look(job)?;
            let ended = job.exit.is_some() && !job.out.contains(word);
            let late = begun.elapsed() > within;
            ensure!(
                !ended && !late,
                "in the guest, {word:?} was not said in {within:?}: {}",
                job.out
            );
        }
        Ok(())
    }

    /// Begins the load on the first MiB of a disk that reads as zeroes, and waits until it goes.
    pub fn load(&mut self, device: &str, mib: u64, seed: u64) -> Step<Job> {
        let script = format!(
            "agent --in-guest load {device} {mib} {seed} {}",
            enough(device)
        );
        let mut load = self.begin(&script)?;
        self.wait_for(&mut load, "acknowledged", COMMAND_MAX)?;
        Ok(load)
    }

    /// Waits until a load has got on, by more than could have been on its way.
    pub fn gets_on(&mut self, load: &mut Job, within: Duration) -> Step<()> {
        let so_far = |load: &Job| -> u64 {
            let last = load
                .out
                .lines()
                .rev()
                .find_map(|l| l.strip_prefix("acknowledged "));
            last.and_then(|count| count.parse().ok()).unwrap_or(0)
        };
        self.look(load)?;
        let (before, begun) = (so_far(load), Instant::now());
        while so_far(load) < before + 50 {
            ensure!(
                load.exit.is_none() && begun.elapsed() < within,
                "the load does not get on in {:?}: {}",
                begun.elapsed(),
                load.out
            );
            self.look(load)?;
        }
        Ok(())
    }

    /// Ends a load, which then reads and checks everything; its last line.
    pub fn enough(&mut self, device: &str, mut load: Job) -> Step<String> {
        self.run(&format!("touch {}", enough(device)))?;
        let code = self.wait(&mut load, COMMAND_MAX)?;
        ensure!(code == 0, "the load on {device}: exit {code}: {}", load.out);
        Ok(load.out.lines().last().unwrap_or_default().to_owned())
    }

    /// Goes on with the guest that was in another QEMU, which has sent it here.
    pub fn continue_from(&mut self, other: &Guest) -> Step<()> {
        self.jobs = other.jobs;
        self.talk.go_on_after(&other.talk);
        self.hello(BOOT_MAX)
    }

    /// Nothing in the kernel's log tells of a failed request, a broken file system or a hung task.
    pub fn nothing_failed(&mut self) -> Step<()> {
        let log = self.run("dmesg")?;
        let bad = [
            "I/O error",
            "Buffer I/O",
            "EXT4-fs error",
            "EXT4-fs warning",
            "XFS: Internal error",
            "metadata I/O",
            "blocked for more than",
            "BUG:",
            "WARNING:",
        ];
        let wrong: Vec<&str> = log
            .lines()
            .filter(|line| bad.iter().any(|b| line.contains(b)))
            .collect();
        ensure!(
            wrong.is_empty(),
            "the guest's kernel says: {}",
            wrong.join(" | ")
        );
        Ok(())
    }

    /// Ends it at once: the whole host is gone.
    pub fn kill(mut self) -> Step<()> {
        self.strike()?;
        self.reap()
    }

    /// Sends SIGKILL to QEMU.
    pub fn strike(&mut self) -> Step<()> {
        Ok(self.child.0.kill()?)
    }

    /// Waits until the guest has turned itself off, or begun to boot again, with which QEMU ends.
    pub fn ended(mut self, within: Duration) -> Step<()> {
        let begun = Instant::now();
        while self.child.0.try_wait()?.is_none() {
            ensure!(
                begun.elapsed() < within,
                "the guest has not ended within {within:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits for the end of QEMU.
    pub fn reap(&mut self) -> Step<()> {
        self.child.0.wait()?;
        Ok(())
    }
}
