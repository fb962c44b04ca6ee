//! `sarsen attachments`

use super::output::table;
use super::{Context, Failure};
use crate::api::model::{Attachment, AttachmentList, AttachmentState, FrontEnd};

#[derive(Debug, clap::Args)]
pub struct Attachments {}

impl Attachments {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let list = context.client.attachments().await?;
        context.output.show(&list, for_people)
    }
}

fn for_people(list: &AttachmentList) -> String {
    let row = |one: &Attachment| {
        [
            one.volume.clone(),
            kind(one),
            one.path.clone().or(one.socket.clone()).unwrap_or_default(),
            one.queues.to_string(),
            state(one),
        ]
    };
    let header = ["VOLUME", "BY", "AT", "QUEUES", "STATE"];
    table(header, list.attachments.iter().map(row))
}

/// What a person is told of one that was just made.
pub(super) fn one(attachment: &Attachment) -> String {
    let link = match attachment.front_end {
        FrontEnd::Ublk | FrontEnd::Nbd => format!(" (/dev/sarsen/{})", attachment.volume),
        FrontEnd::VhostUser | FrontEnd::Device | FrontEnd::None => String::new(),
    };
    format!(
        "{} is attached: {}{link}",
        attachment.volume,
        short(attachment)
    )
}

/// How a volume is attached, in a few words.
pub(super) fn short(attachment: &Attachment) -> String {
    let at = attachment.path.as_ref().or(attachment.socket.as_ref());
    let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
    format!("{}{at}, {}", kind(attachment), state(attachment))
}

pub(super) fn kind(attachment: &Attachment) -> String {
    match attachment.front_end {
        FrontEnd::VhostUser if attachment.incoming => "vhost-user (incoming)",
        FrontEnd::VhostUser => "vhost-user",
        FrontEnd::Device => "device",
        FrontEnd::Ublk => "ublk",
        FrontEnd::Nbd => "nbd",
        FrontEnd::None => "in passing",
    }
    .into()
}

fn state(attachment: &Attachment) -> String {
    let state = match attachment.state {
        AttachmentState::Listening => "listening",
        AttachmentState::Connected => "connected",
        AttachmentState::Running => "running",
        AttachmentState::Serving => "serving",
        AttachmentState::Held => "held",
        AttachmentState::Failed => return format!("failed: {}", attachment.reason),
    };
    state.into()
}
