//! The rules of the house, as tests: which room may import what, and how a file begins.
//!
//! The compiler holds most of the walls up: the world's rooms and crates sit behind a feature, rooms have private
//! modules and a door of `pub use`, pure rooms forbid unsafe code. What it cannot see stands in [`ROOMS`]:
//! a room imports only the rooms and crates of its line, and a pure room nothing that reads a clock, draws
//! randomness, opens a file or socket, starts a thread or depends on the order of a hash map. Tests may.
//!
//! A line is widened on purpose only: with the reason in `docs/decisions/`, if it is a wall that comes down.

mod source;

use source::{Path, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path as FilePath, PathBuf};

/// The most lines of a file without its tests. About 300 are usual; past 600 ask why.
const LINES_MAX: usize = 900;

/// A room and what it may import.
struct Room {
    name: &'static str,
    /// Whether it decides, and so never touches the world.
    pure: bool,
    rooms: &'static [&'static str],
    crates: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room {
        name: "base",
        pure: true,
        rooms: &[],
        crates: &["crc32c", "hashbrown", "serde"],
    },
    Room {
        name: "protocol",
        pure: true,
        rooms: &["base"],
        crates: &["hashbrown", "serde", "serde_json"],
    },
    Room {
        name: "wire",
        pure: true,
        rooms: &["base", "protocol"],
        crates: &[],
    },
    Room {
        // crc32c for the seals of its structures (the crc of a block is made in base); serde for what `disk check`
        // and `disk inspect` report.
        name: "store",
        pure: true,
        rooms: &["base"],
        crates: &["crc32c", "serde"],
    },
    Room {
        name: "shard",
        pure: true,
        rooms: &["base", "protocol", "wire", "store"],
        crates: &[],
    },
    Room {
        name: "node",
        pure: true,
        rooms: &["base", "protocol", "wire", "shard"],
        crates: &[],
    },
    Room {
        // serde and serde_json to weigh commands and events as the manager's log has them.
        name: "sim",
        pure: true,
        rooms: &["base", "protocol", "wire", "store", "shard", "node"],
        crates: &["serde", "serde_json"],
    },
    Room {
        name: "observe",
        pure: false,
        rooms: &["base"],
        crates: &["prometheus_client", "tracing", "tracing_subscriber"],
    },
    Room {
        // vm_memory for guests' memory, whose mapping is a system call.
        name: "io",
        pure: false,
        rooms: &["base", "observe"],
        crates: &["io_uring", "libc", "nix", "vm_memory"],
    },
    Room {
        // Its dialects are values; sockets and commands are the runtime's. Guests' memory is read through `io`.
        name: "frontend",
        pure: true,
        rooms: &["base", "io", "observe"],
        crates: &["vhost", "virtio_bindings", "virtio_queue", "vm_memory"],
    },
    Room {
        // libc and nix for error numbers and the pinning of threads; tokio for the channels of its handle.
        name: "runtime",
        pure: false,
        rooms: &[
            "base", "protocol", "wire", "store", "shard", "io", "frontend", "observe",
        ],
        crates: &["libc", "nix", "tokio", "tracing"],
    },
    Room {
        name: "manager",
        pure: false,
        rooms: &["base", "protocol", "wire", "io", "observe"],
        crates: &[
            "openraft",
            "redb",
            "serde",
            "serde_json",
            "tokio",
            "tracing",
        ],
    },
    Room {
        // Keys, certificates and TLS without sockets; its files are its own, because what lies in them is nobody else's to read.
        name: "trust",
        pure: false,
        rooms: &["base"],
        crates: &[
            "base64",
            "rcgen",
            "ring_crypto",
            "rustls",
            "time_date",
            "webpki",
            "x509_parser",
        ],
    },
    Room {
        // wire for the choice of a version; serde for what is said when somebody joins.
        name: "calls",
        pure: false,
        rooms: &["base", "wire", "trust"],
        crates: &[
            "base64",
            "rustls",
            "serde",
            "serde_json",
            "tokio",
            "tokio_rustls",
            "tracing",
        ],
    },
    Room {
        // The manager speaks over calls, and both know nothing of one another: here they meet.
        name: "cluster",
        pure: false,
        rooms: &["base", "protocol", "trust", "calls", "manager"],
        crates: &["serde", "serde_json", "tokio", "tracing"],
    },
    Room {
        // It drives the machines of `node` over the manager, calls and the shards; shards and stores are a trait of its own, in their words.
        name: "pilot",
        pure: false,
        rooms: &[
            "base", "protocol", "wire", "store", "shard", "node", "trust", "calls", "manager",
        ],
        crates: &["serde", "serde_json", "tokio", "tracing"],
    },
    Room {
        name: "api",
        pure: false,
        // `frontend`: what the kernel is told to make devices, which is control and not data. `trust`: who speaks over TCP.
        rooms: &[
            "base", "protocol", "store", "shard", "io", "frontend", "observe", "runtime",
            "manager", "cluster", "pilot", "trust",
        ],
        crates: &[
            "axum",
            "clap",
            "crc32c",
            "http_body_util",
            "hyper",
            "hyper_util",
            "serde",
            "serde_json",
            "tokio",
            "tokio_rustls",
            "tracing",
        ],
    },
    Room {
        name: "cli",
        pure: false,
        // `io` and `store`: the tools for a disk that no daemon runs.
        rooms: &["base", "observe", "api", "daemon", "io", "store"],
        crates: &[
            "clap",
            "clap_complete",
            "clap_mangen",
            "comfy_table",
            "hyper",
            "indicatif",
            "libc",
            "nix",
            "serde",
            "serde_json",
            "tokio",
        ],
    },
    Room {
        name: "daemon",
        pure: false,
        rooms: &[
            "base", "protocol", "wire", "store", "shard", "io", "frontend", "observe", "runtime",
            "manager", "cluster", "trust", "api", "node", "calls", "pilot",
        ],
        crates: &["nix", "serde", "tokio", "tokio_uring", "toml", "tracing"],
    },
];

/// What belongs to no room: the crate's roots, this file, and the pages of the documentation.
const OUTSIDE: &[&str] = &["lib", "main", "tidy", "docs"];

/// Of the standard library, what no pure room names, and why.
const IMPURE: &[(&[&str], &str)] = &[
    (&["std", "fs"], "it opens files"),
    (&["std", "net"], "it opens sockets"),
    (&["std", "os"], "it reaches the system"),
    (&["std", "io"], "it reads and writes"),
    (&["std", "env"], "it reads the environment"),
    (&["std", "process"], "it starts or ends processes"),
    (&["std", "thread"], "it starts threads"),
    (&["std", "sync"], "nothing is shared between shards"),
    (
        &["std", "time", "Instant"],
        "it reads a clock; time is an argument",
    ),
    (
        &["std", "time", "SystemTime"],
        "it reads a clock; time is an argument",
    ),
    (
        &["std", "collections", "HashMap"],
        "its order changes from run to run",
    ),
    (
        &["std", "collections", "HashSet"],
        "its order changes from run to run",
    ),
    (
        &["std", "hash", "RandomState"],
        "it draws randomness of its own",
    ),
];

/// Files of pure rooms that are the outside of a driver, not a part of what decides.
const DRIVERS: &[&str] = &["sim/main.rs"];

/// A file under `src/`.
struct File {
    /// From `src/` on.
    path: String,
    text: String,
    source: Source,
    /// Only tests see it.
    test: bool,
}

impl File {
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules its own is below the crate's root.
    fn depth(&self) -> usize {
        let parts: Vec<&str> = self.path.split('/').collect();
        match parts.as_slice() {
            [.., "mod.rs"] => parts.len() - 1,
            ["lib.rs" | "main.rs"] => 0,
            _ => parts.len(),
        }
    }

    /// The path as seen from the crate's root, if it leads there: through `crate`, or out of the room by `super`.
    fn in_crate<'a>(&self, path: &'a Path) -> Option<&'a [String]> {
        let head = path.segments.first()?.as_str();
        if head == "crate" || head == "sarsen" {
            return Some(&path.segments[1..]);
        }
        let up = path.segments.iter().take_while(|s| *s == "super").count();
        (up > 0 && up >= self.depth() + path.inside).then(|| &path.segments[up..])
    }
}

/// Every source file, in the order of its path.
fn files() -> Vec<File> {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    let mut files: Vec<File> = found
        .iter()
        .map(|at| {
            let text = fs::read_to_string(at).unwrap();
            let path = at.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            File {
                source: Source::read(&text),
                test: false,
                path,
                text,
            }
        })
        .collect();
    let tests: BTreeSet<String> = files.iter().flat_map(test_places).collect();
    for file in &mut files {
        let stem = file.path.trim_end_matches(".rs").to_owned();
        let below = |place: &String| stem == *place || stem.starts_with(&format!("{place}/"));
        file.test = file.room() == "tidy" || tests.iter().any(below);
    }
    files
}

fn walk(folder: &FilePath, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Where the modules live that this file has for tests only.
fn test_places(file: &File) -> Vec<String> {
    let stem = file.path.trim_end_matches(".rs");
    let folder = match stem.rsplit_once('/') {
        Some((folder, "mod")) => format!("{folder}/"),
        None if stem == "lib" || stem == "main" => String::new(),
        _ => format!("{stem}/"),
    };
    let modules = file.source.test_modules.iter();
    modules.map(|name| format!("{folder}{name}")).collect()
}

fn rooms() -> BTreeMap<&'static str, &'static Room> {
    ROOMS.iter().map(|room| (room.name, room)).collect()
}

/// The crates of the manifest, as code names them.
fn crates_of_the_manifest() -> BTreeSet<String> {
    let manifest = include_str!("../Cargo.toml");
    let mut in_table = false;
    let mut crates = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_table = line.trim_end().ends_with("dependencies]");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| in_table) {
            crates.insert(name.trim().replace('-', "_"));
        }
    }
    crates
}

/// Fails with every finding, one a line.
fn assert_none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[test]
fn every_folder_is_a_room_with_a_line_in_the_table() {
    let rooms = rooms();
    let unknown =
        |file: &&File| !rooms.contains_key(file.room()) && !OUTSIDE.contains(&file.room());
    let found: Vec<String> = files()
        .iter()
        .filter(unknown)
        .map(|f| f.path.clone())
        .collect();
    assert_none(&found, "no room of the table in src/tidy.rs");
}

#[test]
fn a_room_imports_only_the_rooms_of_its_line() {
    let rooms = rooms();
    let mut found = Vec::new();
    for file in files().iter().filter(|file| !file.test) {
        let Some(room) = rooms.get(file.room()) else {
            continue;
        };
        for path in &file.source.paths {
            let other = file.in_crate(path).and_then(|path| path.first());
            let Some(other) = other.filter(|other| rooms.contains_key(other.as_str())) else {
                continue;
            };
            if other != room.name && !room.rooms.contains(&other.as_str()) {
                let File { path: at, .. } = file;
                found.push(format!(
                    "src/{at}:{}: {} imports {other}",
                    path.line, room.name
                ));
            }
        }
    }
    assert_none(
        &found,
        "a room imports what its line in src/tidy.rs does not have",
    );
}

#[test]
fn a_room_uses_only_the_crates_of_its_line() {
    let (rooms, crates) = (rooms(), crates_of_the_manifest());
    assert!(
        crates.contains("io_uring"),
        "the manifest is not understood"
    );
    let mut found = Vec::new();
    for file in files().iter().filter(|file| !file.test) {
        let Some(room) = rooms.get(file.room()) else {
            continue;
        };
        for path in file
            .source
            .paths
            .iter()
            .filter(|path| path.segments.len() > 1)
        {
            let head = &path.segments[0];
            if crates.contains(head) && !room.crates.contains(&head.as_str()) {
                let File { path: at, .. } = file;
                found.push(format!("src/{at}:{}: {} uses {head}", path.line, room.name));
            }
        }
    }
    assert_none(
        &found,
        "a room uses a crate that its line in src/tidy.rs does not have",
    );
}

#[test]
fn a_pure_room_touches_no_clock_file_socket_or_thread() {
    let rooms = rooms();
    let mut found = Vec::new();
    let decides = |file: &&File| !file.test && !DRIVERS.contains(&file.path.as_str());
    for file in files().iter().filter(decides) {
        if !rooms.get(file.room()).is_some_and(|room| room.pure) {
            continue;
        }
        for path in &file.source.paths {
            let names = |banned: &[&str]| {
                path.segments.len() >= banned.len()
                    && path.segments.iter().zip(banned).all(|(a, b)| a == b)
            };
            if let Some((banned, why)) = IMPURE.iter().find(|(banned, _)| names(banned)) {
                let File { path: at, .. } = file;
                found.push(format!(
                    "src/{at}:{}: {}: {why}",
                    path.line,
                    banned.join("::")
                ));
            }
        }
    }
    assert_none(&found, "a pure room touches the world");
}

#[test]
fn a_pure_room_forbids_unsafe_code_at_its_door() {
    let rooms = rooms();
    // The front ends forbid it one by one: a later one reads guests' memory.
    let door = |file: &&File| {
        let pure = rooms.get(file.room()).is_some_and(|room| room.pure);
        pure && file.room() != "frontend" && file.path == format!("{}/mod.rs", file.room())
    };
    let open = |file: &&File| !file.text.contains("#![forbid(unsafe_code)]");
    let found: Vec<String> = files()
        .iter()
        .filter(door)
        .filter(open)
        .map(|f| format!("src/{}", f.path))
        .collect();
    assert_none(
        &found,
        "no #![forbid(unsafe_code)] at the door of a pure room",
    );
}

#[test]
fn a_file_begins_by_saying_what_it_is() {
    let begins_well = |file: &&File| {
        let attribute = |line: &&str| line.starts_with("#![") || line.is_empty();
        let first = file.text.lines().find(|line| !attribute(line));
        file.text.starts_with("#![doc") || first.is_some_and(|line| line.starts_with("//!"))
    };
    let files = files();
    let silent = files.iter().filter(|file| !begins_well(file));
    let found: Vec<String> = silent.map(|file| format!("src/{}:1", file.path)).collect();
    assert_none(&found, "a file does not begin with `//!`");
}

#[test]
fn a_file_is_not_too_long() {
    let files = files();
    let long = files
        .iter()
        .filter(|file| !file.test && file.source.lines > LINES_MAX);
    let found: Vec<String> = long
        .map(|file| {
            format!(
                "src/{}: {} lines without tests",
                file.path, file.source.lines
            )
        })
        .collect();
    assert_none(&found, "a file is longer than 900 lines");
}

#[test]
fn the_crates_that_a_line_names_are_in_the_manifest() {
    let crates = crates_of_the_manifest();
    let named = ROOMS
        .iter()
        .flat_map(|room| room.crates.iter().map(move |name| (room.name, *name)));
    let found: Vec<String> = named
        .filter(|(_, name)| !crates.contains(*name))
        .map(|(room, name)| format!("{room}: {name}"))
        .collect();
    assert_none(&found, "a crate that Cargo.toml does not have");
}

/// The paths in `text`, as lines of `line path`.
fn paths_of(text: &str) -> Vec<String> {
    let paths = Source::read(text).paths;
    let long = paths.iter().filter(|path| path.segments.len() > 1);
    long.map(|path| format!("{} {}", path.line, path.segments.join("::")))
        .collect()
}

#[test]
fn groups_and_paths_in_the_middle_of_a_line_are_seen() {
    let text = "use crate::{base::Time, store::{self, Store as S}};\n\
                fn f() -> std::fs::File { let x = crate::io::open(\"crate::sim\"); x }";
    let expected = [
        "1 crate::base::Time",
        "1 crate::store::self",
        "1 crate::store::Store",
        "2 std::fs::File",
        "2 crate::io::open",
    ];
    assert_eq!(paths_of(text), expected);
}

#[test]
fn comments_strings_characters_and_tests_are_not_code() {
    let text = "// use a::b;\n/* a::b */ const Q: char = '\"'; const R: &str = r#\"a::\"b\"#;\n\
                fn f<'a>(x: &'a str) -> c::d { b'\\'' }\n\
                #[cfg(test)]\nmod tests {\n use e::f;\n fn g() {}\n}\nuse h::i;";
    assert_eq!(paths_of(text), ["3 c::d", "9 h::i"]);
}

#[test]
fn super_counts_the_modules_that_it_leaves() {
    let text = "use super::super::io::Disk;\nmod inner {\n use super::super::door::X;\n}";
    let file = File {
        path: "store/write.rs".into(),
        text: text.into(),
        source: Source::read(text),
        test: false,
    };
    let out: Vec<_> = file
        .source
        .paths
        .iter()
        .filter_map(|path| file.in_crate(path))
        .collect();
    assert_eq!(out, [["io", "Disk"]]);
}
