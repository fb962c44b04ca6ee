//! Certificates that renew themselves: who has one asks a member for the next, over a connection that the present one proves.

use super::calls::Calls;
use super::error::CallError;
use super::service::Service;
use crate::base::NodeId;
use crate::trust::{Authority, Identity, Keeper, NODE_LIFE};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How long one member is given.
const WITHIN: Duration = Duration::from_secs(20);
/// How long it is until it is tried again where nobody could be asked: there are ten days for it.
const AGAIN: Duration = Duration::from_secs(600);

impl Calls {
    /// Renews certificates of whoever calls: each gets one for who it is proven to be, and nothing else.
    pub fn serve_renewals(&self, authority: Arc<Authority>) {
        let proven = self.is_authenticated();
        let me = self.node();
        self.handle(Service::Trust, move |caller, request| {
            let authority = authority.clone();
            async move {
                let node = caller.node.filter(|node| proven || *node == me);
                let node = node.ok_or(
                    "certificates are renewed only for who has one: connections here are plain, so nobody has shown any; join again with a new token",
                )?;
                let issued = authority.issue(&request, &Identity::Node(node), NODE_LIFE);
                let certificate = issued.map_err(|error| error.to_string())?;
                tracing::info!(%node, "a certificate is renewed");
                Ok(certificate.to_vec())
            }
        });
    }

    /// Has `member` renew what `keeper` holds, and puts it in place under all connections.
    ///
    /// # Errors
    /// In words; what there was goes on.
    pub async fn renew(&self, keeper: &Keeper, member: NodeId) -> Result<(), String> {
        let request = keeper.request().map_err(|error| error.to_string())?;
        let asked = self.call(member, Service::Trust, request.der().to_vec(), WITHIN);
        let certificate = asked.await.map_err(|error: CallError| error.to_string())?;
        let installed = keeper.install(request, certificate);
        installed.map_err(|error| error.to_string())
    }

    /// Renews what `keeper` holds whenever two thirds of its life are over, for ever. `members` says whom to ask, the first that does it. Looks at the clock at least
    /// every `look`, because that may be set.
    pub async fn keep_renewed(
        &self,
        keeper: Arc<Keeper>,
        members: impl Fn() -> Vec<NodeId>,
        look: Duration,
    ) {
        loop {
            let left = keeper.renewal_in();
            if !left.is_zero() {
                sleep(left.min(look)).await;
                continue;
            }
            if !self.renew_by_any(&keeper, &members()).await {
                sleep(AGAIN.min(look)).await;
            }
        }
    }

    async fn renew_by_any(&self, keeper: &Keeper, members: &[NodeId]) -> bool {
        for member in members {
            match self.renew(keeper, *member).await {
                Ok(()) => {
                    let until = keeper.current().ends();
                    tracing::info!(%member, %until, "this node's certificate is renewed");
                    return true;
                }
                Err(why) => {
                    tracing::warn!(%member, "this node's certificate is not renewed: {why}");
                }
            }
        }
        false
    }
}
