//! The daemon's counters, asked over one HTTP connection that stays open, because a kill at the right moment
//! needs them every millisecond.

use super::Step;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Counters by name, summed over their labels, and by name with labels.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn ask(api: &Path) -> Step<Metrics> {
        Watch::open(api)?.look()
    }

    /// Zero where there is no such counter.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    fn parse(text: &str) -> Metrics {
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let name = series.split('{').next().unwrap_or(series);
            if let Ok(value) = value.parse::<f64>() {
                *all.entry(name.to_owned()).or_insert(0.0) += value;
                if name != series {
                    all.insert(series.to_owned(), value);
                }
            }
        }
        Metrics(all)
    }
}

/// An open connection to the API.
pub struct Watch {
    stream: BufReader<UnixStream>,
}

impl Watch {
    pub fn open(api: &Path) -> Step<Watch> {
        let stream = UnixStream::connect(api)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Watch {
            stream: BufReader::new(stream),
        })
    }

    pub fn look(&mut self) -> Step<Metrics> {
        self.stream
            .get_mut()
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: sarsen\r\n\r\n")?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        if !status.contains(" 200 ") {
            return Err(format!("/metrics answers {:?}", status.trim_end()).into());
        }
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("/metrics ends in its head".into());
            }
            if line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let mut body = vec![0; length.ok_or("/metrics has no length")?];
        self.stream.read_exact(&mut body)?;
        Ok(Metrics::parse(std::str::from_utf8(&body)?))
    }
}
