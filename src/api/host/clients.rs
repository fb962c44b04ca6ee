//! Clients of the cluster: certificates and tokens for who uses it from outside, and who may do what with them.

use super::Host;
use crate::api::model::{
    ClientRole, ClusterApiToken, ClusterClient, ClusterClientMade, ClusterClientMake,
    ClusterClients, ErrorBody,
};
use crate::cluster::{CLIENT_LIFE_MAX, ClusterError, TOKEN_LIFE_MAX};
use crate::protocol::catalog;
use crate::trust::{Role, UserName};
use std::time::Duration;

/// What is issued lasts at least a second.
const LIFE_MIN: Duration = Duration::from_secs(1);

impl From<ClientRole> for Role {
    fn from(role: ClientRole) -> Role {
        match role {
            ClientRole::Reader => Role::Reader,
            ClientRole::Operator => Role::Operator,
            ClientRole::Admin => Role::Admin,
        }
    }
}

impl From<catalog::ClientRole> for ClientRole {
    fn from(role: catalog::ClientRole) -> ClientRole {
        match role {
            catalog::ClientRole::Reader => ClientRole::Reader,
            catalog::ClientRole::Operator => ClientRole::Operator,
            catalog::ClientRole::Admin => ClientRole::Admin,
        }
    }
}

impl Host {
    /// A certificate for a client, with its key, which nobody else has.
    pub async fn make_client(
        &self,
        make: ClusterClientMake,
    ) -> Result<ClusterClientMade, ErrorBody> {
        let (name, life) = checked(&make, CLIENT_LIFE_MAX)?;
        let issued = self
            .cluster()
            .issue_certificate(&name, make.role.into(), life);
        let issued = issued.await?;
        tracing::info!(client = make.name, role = ?make.role, ends = issued.ends, "a certificate was issued");
        Ok(ClusterClientMade {
            name: make.name,
            role: make.role,
            expires: issued.ends,
            ca_cert: issued.files.authority,
            client_cert: issued.files.certificate,
            client_key: issued.files.key,
        })
    }

    /// A token that speaks for a client at the API.
    pub async fn make_api_token(
        &self,
        make: ClusterClientMake,
    ) -> Result<ClusterApiToken, ErrorBody> {
        let (name, life) = checked(&make, TOKEN_LIFE_MAX)?;
        let issued = self.cluster().issue_token(&name, make.role.into(), life);
        let issued = issued.await?;
        tracing::info!(client = make.name, role = ?make.role, ends = issued.ends, "a token was issued");
        Ok(ClusterApiToken {
            name: make.name,
            role: make.role,
            expires: issued.ends,
            token: issued.token,
        })
    }

    pub fn clients(&self) -> Result<ClusterClients, ErrorBody> {
        if self.cluster().keeper().is_none() {
            return Err(ClusterError::Alone.into());
        }
        let catalog = self.manager().catalog();
        let client = |(name, client): (&str, &catalog::Client)| ClusterClient {
            name: name.to_owned(),
            role: client.role.into(),
            until_unix_seconds: client.until,
            revoked: client.revoked,
        };
        Ok(ClusterClients {
            clients: catalog.clients().map(client).collect(),
        })
    }

    /// Takes nothing any more that a client shows, at any node that has heard of it.
    pub async fn revoke_client(&self, name: &str) -> Result<(), ErrorBody> {
        self.cluster().revoke_client(name).await?;
        tracing::warn!(client = name, "a client was revoked");
        Ok(())
    }
}

fn checked(make: &ClusterClientMake, most: Duration) -> Result<(UserName, Duration), ErrorBody> {
    let name = UserName::new(&make.name).ok_or_else(|| {
        let message = format!("{:?} is no name of a client", make.name);
        ErrorBody::invalid("name", message, "use 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    })?;
    let life = Duration::from_secs(make.expires_seconds);
    if !(LIFE_MIN..=most).contains(&life) {
        let days = most.as_secs() / 86_400;
        let message = format!("{} s is not from 1 s to {days} days", make.expires_seconds);
        let hint =
            "make a new one before it ends; what was issued before goes on until its own end";
        return Err(ErrorBody::invalid("expires_seconds", message, hint));
    }
    Ok((name, life))
}
