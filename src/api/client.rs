//! The client of the API, over one connection (of a unix socket, or TLS) that is opened again when it breaks between requests.

use super::model::{
    AlertList, Attach, Attachment, AttachmentList, BenchRequest, BenchResult, CRC_HEADER,
    ClusterApiToken, ClusterClientMade, ClusterClientMake, ClusterClients, ClusterFounded,
    ClusterJoin, ClusterJoined, ClusterMembersSet, ClusterStatus, ClusterToken, ClusterTokenMake,
    Detach, Disk, DiskAdd, DiskDrain, DiskGrow, DiskList, DiskReplace, DiskReplaced, ErrorBody,
    ImportFinish, Map, Node, NodeDrain, NodeMaintenance, NodeRack, NodeRemove, NodeRemoved, Nodes,
    Pool, PoolCreate, PoolList, PoolSet, ScrubResult, Status, Upgrade, Upgrading, Volume,
    VolumeChange, VolumeCreate, VolumeList, crc_of_text, crc_text,
};
use super::remote::{Remote, reason};
use crate::base::crc;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, ErrorKind::TimedOut};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The largest answer that is taken, in bytes: a list of 10,000 volumes is 4 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a daemon on another host may take until it speaks.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Why a request brought nothing.
#[derive(Debug)]
pub enum ClientError {
    /// There is no daemon behind the socket, or it went away.
    CannotReach { socket: PathBuf, reason: String },
    /// The same of one on another host.
    CannotReachRemote { address: String, reason: String },
    /// The daemon said no.
    Refused(ErrorBody),
    /// The answer is not one that this client understands.
    Malformed(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::CannotReach { socket, reason } => write!(
                f,
                "cannot reach the daemon at {}: {reason}\n  is it running? (sarsen dev, or systemctl \
                 status sarsen) --api PATH or SARSEN_API names its socket",
                socket.display()
            ),
            ClientError::CannotReachRemote { address, reason } => write!(
                f,
                "cannot reach the daemon at https://{address}: {reason}\n  does it listen there ([api] listen), and is what you show (--tls DIR, SARSEN_API_TOKEN) of its \
                 cluster? `sarsen cluster client` and `sarsen cluster api-token` make new ones"
            ),
            ClientError::Refused(error) => error.fmt(f),
            ClientError::Malformed(what) => write!(f, "the daemon's answer is odd: {what}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Where it is.
enum Daemon {
    Here(PathBuf),
    Elsewhere(Remote),
}

/// A client of one daemon.
pub struct Client {
    to: Daemon,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client of the daemon whose API socket is at `socket`. Connects with the first request.
    pub fn new(socket: &Path) -> Client {
        Client {
            to: Daemon::Here(socket.into()),
            connection: None,
        }
    }

    /// A client of a daemon on another host. Connects with the first request.
    pub fn remote(remote: Remote) -> Client {
        Client {
            to: Daemon::Elsewhere(remote),
            connection: None,
        }
    }

    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    pub async fn cluster(&mut self) -> Result<ClusterStatus, ClientError> {
        self.get("/v1/cluster").await
    }

    pub async fn found_cluster(&mut self) -> Result<ClusterFounded, ClientError> {
        self.send(Method::POST, "/v1/cluster", &()).await
    }

    pub async fn cluster_token(
        &mut self,
        make: &ClusterTokenMake,
    ) -> Result<ClusterToken, ClientError> {
        self.send(Method::POST, "/v1/cluster/tokens", make).await
    }

    /// Has the daemon join a cluster; answered before it starts again for that.
    pub async fn join_cluster(&mut self, join: &ClusterJoin) -> Result<ClusterJoined, ClientError> {
        self.send(Method::POST, "/v1/cluster/join", join).await
    }

    pub async fn make_client(
        &mut self,
        make: &ClusterClientMake,
    ) -> Result<ClusterClientMade, ClientError> {
        self.send(Method::POST, "/v1/cluster/clients", make).await
    }

    pub async fn make_api_token(
        &mut self,
        make: &ClusterClientMake,
    ) -> Result<ClusterApiToken, ClientError> {
        self.send(Method::POST, "/v1/cluster/api-tokens", make)
            .await
    }

    pub async fn clients(&mut self) -> Result<ClusterClients, ClientError> {
        self.get("/v1/cluster/clients").await
    }

    pub async fn revoke_client(&mut self, name: &str) -> Result<(), ClientError> {
        let path = path_of("/v1/cluster/clients/", name);
        let answer = self.call(Method::DELETE, &path, None, Bytes::new()).await?;
        answer.success().map(|_| ())
    }

    pub async fn set_members(
        &mut self,
        set: &ClusterMembersSet,
    ) -> Result<ClusterStatus, ClientError> {
        self.send(Method::PUT, "/v1/cluster/members", set).await
    }

    pub async fn alerts(&mut self) -> Result<AlertList, ClientError> {
        self.get("/v1/alerts").await
    }

    /// Has the daemon become another binary; answered before it does.
    pub async fn upgrade(&mut self, upgrade: &Upgrade) -> Result<Upgrading, ClientError> {
        self.send(Method::POST, "/v1/upgrade", upgrade).await
    }

    pub async fn volumes(&mut self) -> Result<VolumeList, ClientError> {
        self.get("/v1/volumes").await
    }

    pub async fn volume(&mut self, name: &str) -> Result<Volume, ClientError> {
        self.get(&volume_path(name)).await
    }

    pub async fn create_volume(&mut self, volume: &VolumeCreate) -> Result<Volume, ClientError> {
        self.send(Method::POST, "/v1/volumes", volume).await
    }

    pub async fn change_volume(
        &mut self,
        name: &str,
        change: &VolumeChange,
    ) -> Result<Volume, ClientError> {
        self.send(Method::PATCH, &volume_path(name), change).await
    }

    pub async fn delete_volume(&mut self, name: &str) -> Result<(), ClientError> {
        let answer = self
            .call(Method::DELETE, &volume_path(name), None, Bytes::new())
            .await?;
        answer.success().map(|_| ())
    }

    pub async fn attach(&mut self, name: &str, attach: &Attach) -> Result<Attachment, ClientError> {
        let path = format!("{}/attach", volume_path(name));
        self.send(Method::POST, &path, attach).await
    }

    pub async fn detach(&mut self, name: &str, detach: Detach) -> Result<(), ClientError> {
        let Detach { force, incoming } = detach;
        let path = format!(
            "{}/attach?force={force}&incoming={incoming}",
            volume_path(name)
        );
        let answer = self.call(Method::DELETE, &path, None, Bytes::new()).await?;
        answer.success().map(|_| ())
    }

    pub async fn attachments(&mut self) -> Result<AttachmentList, ClientError> {
        self.get("/v1/attachments").await
    }

    /// Writes one piece of an import; answered when it is durable.
    pub async fn put_data(
        &mut self,
        name: &str,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), ClientError> {
        let path = format!("{}/data?offset={offset}", volume_path(name));
        let sum = Some(crc::of(&bytes));
        let answer = self.call(Method::PUT, &path, sum, bytes).await?;
        answer.success().map(|_| ())
    }

    /// Reads a piece of a volume, and compares its checksum.
    pub async fn data(&mut self, name: &str, offset: u64, len: u64) -> Result<Bytes, ClientError> {
        let path = format!("{}/data?offset={offset}&len={len}", volume_path(name));
        let answer = self.call(Method::GET, &path, None, Bytes::new()).await?;
        let sum = answer.sum;
        let body = answer.success()?;
        if sum != Some(crc::of(&body)) || body.len() as u64 != len {
            let what = format!("{len} bytes at {offset} of {name} arrived damaged or short");
            return Err(ClientError::Malformed(what));
        }
        Ok(body)
    }

    pub async fn map(&mut self, name: &str, offset: u64, len: u64) -> Result<Map, ClientError> {
        self.get(&format!(
            "{}/map?offset={offset}&len={len}",
            volume_path(name)
        ))
        .await
    }

    pub async fn finish_import(
        &mut self,
        name: &str,
        finish: &ImportFinish,
    ) -> Result<Volume, ClientError> {
        self.send(
            Method::POST,
            &format!("{}/import", volume_path(name)),
            finish,
        )
        .await
    }

    pub async fn pools(&mut self) -> Result<PoolList, ClientError> {
        self.get("/v1/pools").await
    }

    pub async fn pool(&mut self, name: &str) -> Result<Pool, ClientError> {
        self.get(&pool_path(name)).await
    }

    pub async fn create_pool(&mut self, create: &PoolCreate) -> Result<Pool, ClientError> {
        self.send(Method::POST, "/v1/pools", create).await
    }

    pub async fn set_pool(&mut self, name: &str, set: &PoolSet) -> Result<Pool, ClientError> {
        self.send(Method::PATCH, &pool_path(name), set).await
    }

    pub async fn cluster_nodes(&mut self) -> Result<Nodes, ClientError> {
        self.get("/v1/cluster/nodes").await
    }

    pub async fn cluster_node(&mut self, name: &str) -> Result<Node, ClientError> {
        self.get(&node_path(name)).await
    }

    pub async fn drain_node(&mut self, name: &str, drain: &NodeDrain) -> Result<Node, ClientError> {
        let path = format!("{}/drain", node_path(name));
        self.send(Method::POST, &path, drain).await
    }

    pub async fn set_maintenance(
        &mut self,
        name: &str,
        set: &NodeMaintenance,
    ) -> Result<Node, ClientError> {
        let path = format!("{}/maintenance", node_path(name));
        self.send(Method::POST, &path, set).await
    }

    pub async fn set_rack(&mut self, name: &str, set: &NodeRack) -> Result<Node, ClientError> {
        let path = format!("{}/rack", node_path(name));
        self.send(Method::POST, &path, set).await
    }

    pub async fn remove_node(
        &mut self,
        name: &str,
        remove: NodeRemove,
    ) -> Result<NodeRemoved, ClientError> {
        let NodeRemove { force, dry_run } = remove;
        let path = format!("{}?force={force}&dry_run={dry_run}", node_path(name));
        let answer = self.call(Method::DELETE, &path, None, Bytes::new()).await?;
        read(&answer.success()?)
    }

    pub async fn disks(&mut self) -> Result<DiskList, ClientError> {
        self.get("/v1/disks").await
    }

    pub async fn disk(&mut self, id: u32) -> Result<Disk, ClientError> {
        self.get(&format!("/v1/disks/{id}")).await
    }

    pub async fn add_disk(&mut self, add: &DiskAdd) -> Result<Disk, ClientError> {
        self.send(Method::POST, "/v1/disks", add).await
    }

    pub async fn grow_disk(&mut self, id: u32, grow: &DiskGrow) -> Result<Disk, ClientError> {
        self.send(Method::POST, &format!("/v1/disks/{id}/grow"), grow)
            .await
    }

    pub async fn drain_disk(&mut self, id: u32, drain: &DiskDrain) -> Result<Disk, ClientError> {
        self.send(Method::POST, &format!("/v1/disks/{id}/drain"), drain)
            .await
    }

    pub async fn replace_disk(
        &mut self,
        id: u32,
        replace: &DiskReplace,
    ) -> Result<DiskReplaced, ClientError> {
        self.send(Method::POST, &format!("/v1/disks/{id}/replace"), replace)
            .await
    }

    pub async fn remove_disk(&mut self, id: u32) -> Result<(), ClientError> {
        let path = format!("/v1/disks/{id}");
        let answer = self.call(Method::DELETE, &path, None, Bytes::new()).await?;
        answer.success().map(|_| ())
    }

    /// The disk, where it could be removed now.
    pub async fn may_remove_disk(&mut self, id: u32) -> Result<Disk, ClientError> {
        self.get(&format!("/v1/disks/{id}/removal")).await
    }

    pub async fn scrub_disk(&mut self, id: u32) -> Result<ScrubResult, ClientError> {
        self.send(Method::POST, &format!("/v1/disks/{id}/scrub"), &())
            .await
    }

    pub async fn bench(&mut self, bench: &BenchRequest) -> Result<BenchResult, ClientError> {
        self.send(Method::POST, "/v1/bench", bench).await
    }

    /// The metrics, as Prometheus reads them.
    pub async fn metrics(&mut self) -> Result<String, ClientError> {
        let answer = self
            .call(Method::GET, "/metrics", None, Bytes::new())
            .await?;
        let body = answer.success()?;
        String::from_utf8(body.into()).map_err(|error| ClientError::Malformed(error.to_string()))
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let answer = self.call(Method::GET, path, None, Bytes::new()).await?;
        read(&answer.success()?)
    }

    async fn send<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let written =
            serde_json::to_vec(body).map_err(|error| ClientError::Malformed(error.to_string()))?;
        let answer = self.call(method, path, None, written.into()).await?;
        read(&answer.success()?)
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        sum: Option<u32>,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sarsen");
        if let Daemon::Elsewhere(Remote {
            token: Some(token), ..
        }) = &self.to
        {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(sum) = sum {
            request = request.header(CRC_HEADER, crc_text(sum));
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| ClientError::Malformed(error.to_string()))?;
        let sent = self.connected().await?.send_request(request).await;
        let response = sent.map_err(|error| self.lost(error))?;
        let header = response
            .headers()
            .get(CRC_HEADER)
            .and_then(|value| value.to_str().ok());
        let (sum, status) = (header.and_then(crc_of_text), response.status());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| self.lost_body(error))?.to_bytes();
        Ok(Answer { status, sum, body })
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, ClientError> {
        let usable = self
            .connection
            .take()
            .filter(|connection| !connection.is_closed());
        let mut connection = match usable {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.ready().await.map_err(|error| self.lost(error))?;
        Ok(self.connection.insert(connection))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        match &self.to {
            Daemon::Here(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| self.lost(error))?;
                self.speak(stream).await
            }
            Daemon::Elsewhere(remote) => {
                let connected = timeout(CONNECT_WITHIN, remote.connect()).await;
                let connected = connected.map_err(|_| self.lost(io::Error::from(TimedOut)))?;
                let stream = connected.map_err(|error| self.lost(error))?;
                self.speak(stream).await
            }
        }
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let shaken = handshake(TokioIo::new(stream)).await;
        let (connection, driver) = shaken.map_err(|error| self.lost(error))?;
        // Its errors come back with the request that meets them.
        tokio::spawn(driver);
        Ok(connection)
    }

    fn lost_body(&self, error: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        self.lost(io::Error::other(error))
    }

    fn lost(&self, error: impl std::error::Error + 'static) -> ClientError {
        match &self.to {
            Daemon::Here(socket) => ClientError::CannotReach {
                socket: socket.clone(),
                reason: error.to_string(),
            },
            Daemon::Elsewhere(remote) => ClientError::CannotReachRemote {
                address: remote.address.clone(),
                reason: reason(&error),
            },
        }
    }
}

struct Answer {
    status: StatusCode,
    sum: Option<u32>,
    body: Bytes,
}

impl Answer {
    fn success(self) -> Result<Bytes, ClientError> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        Err(match serde_json::from_slice(&self.body) {
            Ok(error) => ClientError::Refused(error),
            Err(_) => ClientError::Malformed(format!("status {}", self.status)),
        })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Malformed(error.to_string()))
}

/// Where a volume is in the API. What is not a name gets there all the same, to be refused with a reason.
fn volume_path(name: &str) -> String {
    path_of("/v1/volumes/", name)
}

fn pool_path(name: &str) -> String {
    path_of("/v1/pools/", name)
}

fn node_path(name: &str) -> String {
    path_of("/v1/cluster/nodes/", name)
}

fn path_of(folder: &str, name: &str) -> String {
    let mut path = String::from(folder);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => path.push(byte.into()),
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_one_segment_of_a_path() {
        assert_eq!(volume_path("vm-1.root_disk"), "/v1/volumes/vm-1.root_disk");
        assert_eq!(
            volume_path("a/../b c?\u{e4}"),
            "/v1/volumes/a%2F..%2Fb%20c%3F%C3%A4"
        );
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut client = Client::new(Path::new("/nonexistent/api.sock"));
        let error = runtime.block_on(client.status()).unwrap_err();
        assert!(matches!(&error, ClientError::CannotReach { .. }));
        assert!(
            error.to_string().contains("/nonexistent/api.sock"),
            "{error}"
        );
    }
}
