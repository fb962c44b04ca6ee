//! Commands about nodes: they come, stand in racks, start, are worked at, and go.

use super::command::Locality;
use super::state::{Entry, Maintenance, MembersBy, Node, Volume};
use super::{ADDRESSES_MAX, Catalog, Code, Event, NODES_MAX, RACKS_MAX, Refusal, check_name};
use crate::base::{DiskId, NodeId, PgId, VolumeId};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::RackId;

/// The longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 255;
/// The longest name of a key or token, in digits: a SHA-256.
const FINGERPRINT_MAX: usize = 64;

impl Catalog {
    pub(super) fn add_node(&mut self, name: &str) -> Result<Vec<Event>, Refusal> {
        check_name("node", name)?;
        if self.node_named(name).is_some() {
            let reason = format!("there is a node named {name:?} already");
            return Err(Refusal::new(
                Code::Exists,
                "name",
                reason,
                "give it another name",
            ));
        }
        if self.nodes.len() >= NODES_MAX {
            let reason = format!("there are {NODES_MAX} nodes already");
            return Err(Refusal::new(
                Code::Exhausted,
                "name",
                reason,
                "use another cluster",
            ));
        }
        let node = Node {
            id: NodeId(self.next.node),
            name: name.into(),
            rack: None,
            incarnation: Incarnation(0),
            maintenance: Maintenance::Off,
            maintenance_until: None,
            addresses: Vec::new(),
            entry: None,
        };
        self.next.node += 1;
        self.put_node(node.clone());
        Ok(vec![Event::NodeAdded { node }])
    }

    pub(super) fn join_node(
        &mut self,
        name: &str,
        addresses: &[String],
        entry: &Entry,
    ) -> Result<Vec<Event>, Refusal> {
        check_addresses(addresses)?;
        let is_short = |text: &str| (1..=FINGERPRINT_MAX).contains(&text.len());
        if !is_short(&entry.key) || !is_short(&entry.token) {
            let reason = format!("key and token have 1 to {FINGERPRINT_MAX} digits");
            let hint = "join with a token of `sarsen cluster token`";
            return Err(Refusal::invalid("entry", reason, hint));
        }
        // A search, but of a thousand nodes at most, and nodes are let in by people.
        let of = |node: &&Node| node.entry.as_ref().is_some_and(|of| of.key == entry.key);
        let again = self.nodes.values().find(of).cloned();
        let used = |node: &Node| {
            let other = node.entry.as_ref();
            other.is_some_and(|of| of.token == entry.token && of.key != entry.key)
        };
        if let Some(other) = self.nodes.values().find(|node| used(node)) {
            let reason = format!("the token was used already, by node {}", other.name);
            let hint = "make one for each machine with `sarsen cluster token`";
            return Err(Refusal::conflict("token", reason, hint));
        }
        if let Some(node) = again {
            let node = Node {
                addresses: addresses.to_vec(),
                entry: Some(entry.clone()),
                ..node
            };
            self.put_node(node.clone());
            return Ok(vec![Event::NodeChanged { node }]);
        }
        let added = self.add_node(name)?;
        let Some(Event::NodeAdded { node }) = added.into_iter().next() else {
            unreachable!("a node that is added is told first");
        };
        let node = Node {
            addresses: addresses.to_vec(),
            entry: Some(entry.clone()),
            ..node
        };
        self.put_node(node.clone());
        Ok(vec![Event::NodeAdded { node }])
    }

    pub(super) fn set_addresses(
        &mut self,
        id: NodeId,
        addresses: &[String],
    ) -> Result<Vec<Event>, Refusal> {
        check_addresses(addresses)?;
        let mut node = self.known_node(id)?.clone();
        node.addresses = addresses.to_vec();
        self.put_node(node.clone());
        Ok(vec![Event::NodeChanged { node }])
    }

    pub(super) fn choose_members(&mut self, by: MembersBy) -> Result<Vec<Event>, Refusal> {
        self.members_by = by;
        Ok(Vec::new())
    }

    pub(super) fn remove_node(&mut self, id: NodeId) -> Result<Vec<Event>, Refusal> {
        self.known_node(id)?;
        let named = |volume: VolumeId| {
            let found = self.volume(volume);
            found.map_or_else(|| volume.to_string(), |volume| volume.name.clone())
        };
        let conflict = |reason: String, hint: &str| Err(Refusal::conflict("node", reason, hint));
        if let Some(disk) = self.disks_of(id).next() {
            let reason = format!("it has disk {} at {}", disk.id, disk.path);
            return conflict(reason, "drain its disks and remove them first");
        }
        let from = (id, VolumeId(0), super::AttachmentKey(0));
        if let Some((_, volume, _)) = self
            .index
            .attached
            .range(from..)
            .next()
            .filter(|one| one.0 == id)
        {
            let reason = format!("the volume {} is attached to it", named(*volume));
            return conflict(reason, "detach it first");
        }
        if let Some(volume) = self.owned_by(id).next() {
            let reason = format!("it owns the range of the volume {}", named(volume));
            return conflict(reason, "detach the volume, or take its range elsewhere");
        }
        let lives = |volume: &&Volume| volume.locality == Locality::Local { home: id };
        if self.index.homes.contains_key(&id) {
            // A search, but only where it is refused.
            let of = self.volumes.values().find(lives);
            let named = of.map_or_else(String::new, |volume| format!(": {}", volume.name));
            let reason = format!("it is the home of local volumes{named}");
            return conflict(reason, "delete those, or keep the node");
        }
        self.drop_node(id);
        Ok(vec![Event::NodeRemoved { node: id }])
    }

    pub(super) fn set_rack(
        &mut self,
        id: NodeId,
        rack: Option<&str>,
    ) -> Result<Vec<Event>, Refusal> {
        let mut node = self.known_node(id)?.clone();
        node.rack = match rack {
            None => None,
            Some(name) => Some(self.rack_named(name)?),
        };
        self.put_node(node.clone());
        Ok(vec![Event::NodeChanged { node }])
    }

    /// The rack of this name; one that is new gets the next number.
    fn rack_named(&mut self, name: &str) -> Result<RackId, Refusal> {
        // A search, but of a thousand names at most, and racks are set by people.
        let found = self.racks.iter().find(|(_, other)| *other == name);
        if let Some((&id, _)) = found {
            return Ok(id);
        }
        check_name("rack", name).map_err(|refusal| Refusal {
            field: "rack".into(),
            ..refusal
        })?;
        if self.racks.len() >= RACKS_MAX {
            let reason = format!("there are {RACKS_MAX} racks already");
            let hint = "use one of them";
            return Err(Refusal::new(Code::Exhausted, "rack", reason, hint));
        }
        let id = RackId(self.next.rack);
        self.next.rack += 1;
        self.racks.insert(id, name.into());
        Ok(id)
    }

    pub(super) fn record_incarnation(
        &mut self,
        id: NodeId,
        incarnation: Incarnation,
    ) -> Result<Vec<Event>, Refusal> {
        let mut node = self.known_node(id)?.clone();
        if incarnation <= node.incarnation {
            let reason = format!("start {} of it is recorded already", node.incarnation.0);
            let hint = "a start has a higher number than every one before";
            return Err(Refusal::conflict("incarnation", reason, hint));
        }
        node.incarnation = incarnation;
        self.put_node(node.clone());
        Ok(vec![Event::NodeChanged { node }])
    }

    pub(super) fn set_maintenance(
        &mut self,
        id: NodeId,
        maintenance: Maintenance,
        until: Option<u64>,
    ) -> Result<Vec<Event>, Refusal> {
        let mut node = self.known_node(id)?.clone();
        if maintenance == Maintenance::Off && until.is_some() && until != node.maintenance_until {
            let reason = "its maintenance has another end by now".to_string();
            let hint = "`sarsen node show` says which";
            return Err(Refusal::conflict("until", reason, hint));
        }
        if maintenance == Maintenance::On
            && let Some(pg) = self.last_copy_on(id)
        {
            let reason = format!("it has the last copy of the placement group {pg}");
            let hint = "wait until other copies are in sync, or move the data away";
            return Err(Refusal::conflict("node", reason, hint));
        }
        node.maintenance = maintenance;
        node.maintenance_until = until.filter(|_| maintenance == Maintenance::On);
        self.put_node(node.clone());
        Ok(vec![Event::NodeChanged { node }])
    }

    /// A PG with data that is in sync on no node but this one and others that are worked at.
    fn last_copy_on(&self, id: NodeId) -> Option<PgId> {
        let stays = |disk: DiskId| {
            let disk = self.disk(disk);
            disk.is_some_and(|disk| {
                let node = self.node(disk.node);
                disk.node != id
                    && disk.state.is_good()
                    && node.is_some_and(|node| node.maintenance == Maintenance::Off)
            })
        };
        let of_node = self.disks_of(id).flat_map(|disk| {
            let pgs = self.pgs_on(disk.id);
            pgs.map(move |pg| (pg, disk.id))
        });
        of_node
            .filter(|&(pg, disk)| {
                let configuration = &self.pgs[&pg].configuration;
                let mut in_sync = configuration.in_sync();
                configuration.in_sync().any(|one| one == disk) && !in_sync.any(stays)
            })
            .map(|(pg, _)| pg)
            .find(|pg| self.has_volumes(*pg))
    }

    /// Whether a volume hashes over a PG.
    pub fn has_volumes(&self, pg: PgId) -> bool {
        let pool = self.pgs[&pg].pool;
        let of = &self.index.of_pools[&pool];
        let most = of.volumes.last_key_value().map_or(0, |(&most, _)| most);
        let used = of.pgs.get(..of.pgs.len().min(most as usize));
        let last = used.and_then(|used| used.last());
        self.index.listed.contains_key(&pg) || last.is_some_and(|last| pg <= *last)
    }

    /// The node, or a refusal that says that there is none.
    pub(super) fn known_node(&self, id: NodeId) -> Result<&Node, Refusal> {
        self.node(id).ok_or_else(|| {
            let reason = format!("there is no node {id}");
            Refusal::not_found("node", reason, "`sarsen status` shows the nodes")
        })
    }
}

/// Whether these can be addresses. That they lead anywhere is known to who dials.
fn check_addresses(addresses: &[String]) -> Result<(), Refusal> {
    let hint = "write them as host:port";
    if addresses.len() > ADDRESSES_MAX {
        let reason = format!("{} are more than {ADDRESSES_MAX}", addresses.len());
        return Err(Refusal::invalid("addresses", reason, hint));
    }
    let is_one = |address: &&String| {
        let port = address
            .rsplit_once(':')
            .map(|(_, port)| port.parse::<u16>());
        address.len() <= ADDRESS_BYTES_MAX
            && address.bytes().all(|byte| byte.is_ascii_graphic())
            && matches!(port, Some(Ok(1..)))
    };
    match addresses.iter().find(|address| !is_one(address)) {
        None => Ok(()),
        Some(odd) => {
            let odd: String = odd.chars().take(ADDRESS_BYTES_MAX).collect();
            let reason = format!("{odd:?} is no address");
            Err(Refusal::invalid("addresses", reason, hint))
        }
    }
}
