//! `sarsen cluster token`

use crate::api::model::{ClusterToken, ClusterTokenMake};
use crate::cli::{Context, Failure};

/// A token is for one machine: it is bound to the key of the one that uses it first.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// How long it is good for: 30m, 1h, 7d; at most 90d
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "1h")]
    expires: u64,
}

impl Token {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let make = ClusterTokenMake {
            expires_seconds: self.expires,
        };
        let token = context.client.cluster_token(&make).await?;
        context.output.show(&token, for_people)
    }
}

fn for_people(token: &ClusterToken) -> String {
    let ClusterToken {
        token,
        expires,
        address,
    } = token;
    format!(
        "{token}\n\n\
         On the host that is to join, whose daemon runs and has neither disks nor volumes, before {expires}:\n\
         \x20 sarsen join {address} --token {token}"
    )
}

/// A time as people write it, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let odd = || format!("{text:?} is no time like 90s, 30m, 1h or 7d");
    let unit = text.chars().last().ok_or_else(odd)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(odd()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| odd())?;
    count.checked_mul(each).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        for (text, is) in [("90s", 90), ("30m", 1_800), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(is));
        }
        for odd in [
            "",
            "1",
            "h",
            "1 h",
            "-1h",
            "1w",
            "1é",
            "99999999999999999999d",
        ] {
            assert!(seconds(odd).is_err(), "{odd}");
        }
    }
}
