//! Calls as the manager's transport. A node that is alone has none yet, and reaches nobody; founding puts them in under the running
//! manager.

use crate::base::NodeId;
use crate::calls::{Calls, Sent, Service};
use crate::manager::{Calling, Transport, Unreachable, Weight, weight};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What carries the manager's questions.
#[derive(Default)]
pub(super) struct Wires {
    calls: Mutex<Option<Calls>>,
}

impl Wires {
    pub fn set(&self, calls: Option<Calls>) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner) = calls;
    }

    fn get(&self) -> Option<Calls> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.clone()
    }
}

/// Which service carries a question of the manager's: elections do not wait behind a snapshot, and neither behind commands.
fn service(question: &[u8]) -> Service {
    match weight(question) {
        Weight::Urgent => Service::Manager,
        Weight::Snapshot => Service::Snapshot,
        Weight::Usual => Service::Catalog,
    }
}

impl Transport for Wires {
    fn call(&self, to: NodeId, body: Vec<u8>, within: Duration) -> Calling<'_> {
        let calls = self.get();
        Box::pin(async move {
            let Some(calls) = calls else {
                let why = format!("this node is in no cluster, and does not reach node {to}");
                return Err(Unreachable::NotSent(why));
            };
            let service = service(&body);
            let answered = calls.call_or_not(to, service, body, within).await;
            answered.map_err(|(sent, error)| match sent {
                Sent::Not => Unreachable::NotSent(error.to_string()),
                Sent::Perhaps => Unreachable::NoAnswer(error.to_string()),
            })
        })
    }
}
