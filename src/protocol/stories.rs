//! Golden stories: the manual of a protocol, told by its machines.
//!
//! A story is a text file in a folder `testscripts`. Lines after `> ` are what happens, lines after `#` are prose, and what
//! stands below a step is what the machines say to it. A test plays the steps and compares all of it, byte for byte;
//! with `SARSEN_REWRITE_STORIES=1` in its environment it writes what it heard instead, to be read and committed.

use std::fs;
use std::path::PathBuf;

/// Plays every story of a protocol's folder, each on a site of its own; `step` answers what is said to one step, in whole lines.
pub fn play<S>(protocol: &str, site: impl Fn() -> S, step: impl Fn(&mut S, &str) -> String) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/protocol")
        .join(protocol)
        .join("testscripts");
    let files = fs::read_dir(&folder).expect("the stories have a folder");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(
        !paths.is_empty(),
        "there are no stories in {}",
        folder.display()
    );
    let rewrites = std::env::var_os("SARSEN_REWRITE_STORIES").is_some_and(|value| value == "1");
    for path in paths {
        let told = fs::read_to_string(&path).expect("a story is text");
        let mut site = site();
        let mut heard = String::new();
        for line in told.lines() {
            let happens = line.strip_prefix("> ");
            if happens.is_some() || line.starts_with('#') || line.is_empty() {
                heard.push_str(line);
                heard.push('\n');
            }
            if let Some(happens) = happens {
                heard.push_str(&step(&mut site, happens));
            }
        }
        match rewrites {
            true => fs::write(&path, heard).expect("the story is written"),
            false => assert_eq!(heard, told, "{}", path.display()),
        }
    }
}
