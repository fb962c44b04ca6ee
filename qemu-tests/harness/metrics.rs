//! The daemon's counters, asked over one HTTP connection that stays open, because a kill at the right moment
//! needs them every millisecond.

use super::Step;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Counters by their series: name and labels.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn ask(api: &Path) -> Step<Metrics> {
        Watch::open(api)?.look()
    }

    /// Summed over its labels; zero where there is no such counter.
    pub fn get(&self, name: &str) -> f64 {
        self.with(name, "")
    }

    /// The same of the series that have this among their labels, as in `stage="send"`.
    pub fn with(&self, name: &str, label: &str) -> f64 {
        let from = self.0.range(name.to_owned()..);
        from.take_while(|(series, _)| series.starts_with(name))
            .filter(|(series, _)| {
                let labels = &series[name.len()..];
                (labels.is_empty() || labels.starts_with('{')) && labels.contains(label)
            })
            .map(|(_, value)| value)
            .sum()
    }

    fn parse(text: &str) -> Metrics {
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            if let Ok(value) = value.parse::<f64>() {
                *all.entry(series.to_owned()).or_insert(0.0) += value;
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
