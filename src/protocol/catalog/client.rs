//! Commands about clients: who of those that hold a certificate or a token of the cluster may use it, and as what.
//!
//! A certificate or token proves a name, and says a role. Here stands which names count: one that is not here, or was revoked, is refused whatever it shows. So a key
//! that got lost is shut out at once and at all nodes, without lists of revoked certificates.

use super::state::{Client, ClientRole};
use super::{CLIENTS_MAX, Catalog, Code, Event, Refusal, check_name};

/// For how many seconds a client's row outlives what it was issued: clocks may be apart.
const KEPT_AFTER_END: u64 = 3_600;

impl Catalog {
    /// The clients that were admitted, and those that were revoked as long as what they were issued could still be shown.
    pub fn clients(&self) -> impl Iterator<Item = (&str, &Client)> {
        let all = self.clients.iter();
        all.map(|(name, client)| (name.as_str(), client))
    }

    pub fn client(&self, name: &str) -> Option<&Client> {
        self.clients.get(name)
    }

    /// What is issued to one name several times counts until the last of it ends, up to the highest role.
    pub(super) fn admit_client(
        &mut self,
        name: &str,
        role: ClientRole,
        (now, until): (u64, u64),
    ) -> Result<Vec<Event>, Refusal> {
        check_name("client", name)?;
        if until <= now {
            let reason = format!("it would end at {until} and it is {now}");
            return Err(Refusal::invalid("until", reason, "name a later time"));
        }
        let is_over = |client: &Client| client.until.saturating_add(KEPT_AFTER_END) < now;
        let known = self.clients.get(name).filter(|client| !is_over(client));
        if known.is_some_and(|client| client.revoked) {
            let reason = format!("the client {name:?} was revoked");
            let hint = "what it was issued would count again: give another name";
            return Err(Refusal::conflict("name", reason, hint));
        }
        let left = self.clients.values().filter(|one| !is_over(one)).count();
        if known.is_none() && left >= CLIENTS_MAX {
            let reason = format!("there are {CLIENTS_MAX} clients already");
            let hint = "wait until what some of them were issued has ended, or issue to a name that is there";
            return Err(Refusal::new(Code::Exhausted, "name", reason, hint));
        }
        let client = known.map_or(
            Client {
                role,
                until,
                revoked: false,
            },
            |known| Client {
                role: known.role.max(role),
                until: known.until.max(until),
                revoked: false,
            },
        );
        self.clients.retain(|_, client| !is_over(client));
        self.clients.insert(name.to_owned(), client);
        Ok(Vec::new())
    }

    /// Said again it changes nothing.
    pub(super) fn revoke_client(&mut self, name: &str) -> Result<Vec<Event>, Refusal> {
        let Some(client) = self.clients.get_mut(name) else {
            let reason = format!("there is no client named {name:?}");
            let hint = "`sarsen cluster clients` shows what there is";
            return Err(Refusal::not_found("name", reason, hint));
        };
        let is_news = !std::mem::replace(&mut client.revoked, true);
        let name = name.to_owned();
        Ok(Vec::from_iter(
            is_news.then_some(Event::ClientRevoked { name }),
        ))
    }
}
