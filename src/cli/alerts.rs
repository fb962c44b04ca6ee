//! `sarsen alerts`

use super::status::duration;
use super::{Context, Failure};
use crate::api::model::Alert;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub struct Alerts {}

impl Alerts {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let alerts = context.client.alerts().await?;
        context
            .output
            .show(&alerts, |list| for_people(&list.alerts))
    }
}

/// Alerts are few and their texts long: each gets a paragraph, not a row.
pub(super) fn for_people(alerts: &[Alert]) -> String {
    if alerts.is_empty() {
        return "no alerts".into();
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let paragraphs = alerts.iter().map(|alert| {
        format!(
            "{}: {} (for {}, seen {} time(s))\n  reason: {}\n  cure:   {}",
            alert.name,
            alert.subject,
            duration(now.saturating_sub(alert.since_unix_seconds)),
            alert.count,
            alert.reason,
            alert.cure
        )
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}
