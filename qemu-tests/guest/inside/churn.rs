//! Load on a file system: files are made, written, cut, renamed, linked, removed and read, in several threads, each in a
//! folder of its own with a model of it; in the end everything is read once more, after a new mount where that is asked.

use crate::harness::{Step, ensure};
use sarsen::base::Prng;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const THREADS: u64 = 3;
const FILES: u64 = 24;
const FILE_MAX: u64 = 512 << 10;

/// What each file of a folder holds.
type Model = BTreeMap<String, Vec<u8>>;

/// So many steps a thread in folders of `at`. The same seed gives the same steps, so `verify` alone finds what must be there.
pub fn run(at: &Path, seed: u64, steps: u64, verify_only: bool) -> Step<()> {
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let folder = at.join(format!("churn{number}"));
            std::thread::spawn(move || {
                let churned = churn(&folder, seed * 31 + number, steps, verify_only);
                churned.map_err(|why| format!("{}: {why}", folder.display()))
            })
        })
        .collect();
    let mut files = 0;
    for thread in threads {
        files += thread.join().map_err(|_| "a thread panicked")??;
    }
    println!("{files} files are as they must be");
    Ok(())
}

fn churn(folder: &Path, seed: u64, steps: u64, verify_only: bool) -> Step<u64> {
    let mut dice = Prng::new(seed);
    let mut model = Model::new();
    if !verify_only {
        fs::create_dir_all(folder)?;
    }
    for _ in 0..steps {
        step(folder, &mut dice, &mut model, !verify_only)?;
    }
    for (name, content) in &model {
        let found = fs::read(folder.join(name))?;
        let differs = found.iter().zip(content).position(|(a, b)| a != b);
        ensure!(
            found.len() == content.len() && differs.is_none(),
            "{name} has {} bytes of {}, and differs at {differs:?}",
            found.len(),
            content.len()
        );
    }
    let there = fs::read_dir(folder)?.count();
    ensure!(
        there == model.len(),
        "{there} files where {} belong",
        model.len()
    );
    Ok(model.len() as u64)
}

/// One change, to the model and, where it is wanted, to the files.
fn step(folder: &Path, dice: &mut Prng, model: &mut Model, real: bool) -> Step<()> {
    let name = |dice: &mut Prng| format!("f{}", dice.below(FILES));
    let (this, other) = (name(dice), name(dice));
    let (kind, at, len) = (dice.below(10), dice.below(FILE_MAX), dice.between(1, 65536));
    let mut bytes = vec![0; len as usize];
    dice.fill(&mut bytes);
    let path = |name: &str| -> PathBuf { folder.join(name) };
    match kind {
        0..=5 => {
            let content = model.entry(this.clone()).or_default();
            let end = (at + len) as usize;
            content.resize(content.len().max(end), 0);
            content[at as usize..end].copy_from_slice(&bytes);
            if real {
                let file = open(&path(&this))?;
                file.write_all_at(&bytes, at)?;
                match kind {
                    0 => file.sync_all()?,
                    1 => file.sync_data()?,
                    _ => {}
                }
            }
        }
        6 => {
            if let Some(content) = model.get_mut(&this) {
                content.resize(at as usize, 0);
                if real {
                    open(&path(&this))?.set_len(at)?;
                }
            }
        }
        7 if this != other => {
            if let Some(content) = model.remove(&this) {
                model.insert(other.clone(), content);
                if real {
                    fs::rename(path(&this), path(&other))?;
                }
            }
        }
        8 => {
            if model.remove(&this).is_some() && real {
                fs::remove_file(path(&this))?;
            }
        }
        _ => {
            if let Some(content) = model.get(&this)
                && real
            {
                let found = fs::read(path(&this))?;
                ensure!(found == *content, "{this} reads differently");
            }
        }
    }
    Ok(())
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}
