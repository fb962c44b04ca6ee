//! `sarsen alerts`

use super::status::since_unix;
use super::{Context, Failure};
use crate::api::model::Alert;

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
    let paragraphs = alerts.iter().map(|alert| {
        format!(
            "{}: {} (for {}, seen {} time(s))\n  reason: {}\n  cure:   {}",
            alert.name,
            alert.subject,
            since_unix(alert.since_unix_seconds),
            alert.count,
            alert.reason,
            alert.cure
        )
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}
