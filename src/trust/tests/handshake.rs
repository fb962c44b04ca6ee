//! Handshakes in memory: who is let in, who is not, and what each side then knows.

use super::*;
use rustls::{ClientConnection, Connection, ServerConnection};

/// What a side knows after a handshake.
#[derive(Debug)]
enum Knows {
    Peer(Option<Identity>),
    Failed(String),
}

impl Knows {
    fn refused(&self, words: &[&str]) {
        match self {
            Knows::Failed(why) => {
                let missing = words.iter().find(|word| !why.contains(**word));
                assert!(missing.is_none(), "{missing:?} is not in: {why}");
            }
            Knows::Peer(peer) => panic!("{peer:?} was let in, without {words:?}"),
        }
    }

    fn peer(&self) -> Option<&Identity> {
        match self {
            Knows::Peer(peer) => peer.as_ref(),
            Knows::Failed(why) => panic!("{why}"),
        }
    }
}

/// Carries bytes from one side to the other; `false` where there are none.
fn carry(from: &mut Connection, to: &mut Connection, failed: &mut Option<String>) -> bool {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut left = &bytes[..];
    while !left.is_empty() && failed.is_none() {
        to.read_tls(&mut left).unwrap();
        if let Err(error) = to.process_new_packets() {
            *failed = Some(explain_tls(&error));
        }
    }
    !bytes.is_empty()
}

/// (client, server)
fn meet(
    client: Arc<rustls::ClientConfig>,
    server: (&Arc<Keeper>, Purpose),
    known_by: &Keeper,
) -> (Knows, Knows) {
    let config = server.0.server_config_for(server.1);
    let mut there = Connection::Server(ServerConnection::new(config).unwrap());
    let name = "sarsen".try_into().unwrap();
    let mut here = Connection::Client(ClientConnection::new(client, name).unwrap());
    let (mut here_failed, mut there_failed) = (None, None);
    loop {
        let moved = carry(&mut here, &mut there, &mut there_failed);
        if !carry(&mut there, &mut here, &mut here_failed) && !moved {
            break;
        }
    }
    let knows = |connection: &Connection, failed, keeper: &Keeper| match failed {
        Some(why) => Knows::Failed(why),
        None => Knows::Peer(keeper.identity_of(connection.peer_certificates())),
    };
    let there = knows(&there, there_failed, server.0);
    (knows(&here, here_failed, known_by), there)
}

fn both(client: &Arc<Keeper>, server: &Arc<Keeper>, purpose: Purpose) -> (Knows, Knows) {
    meet(client.client_config_for(purpose), (server, purpose), client)
}

const ALL: [Purpose; 4] = [Purpose::Calls, Purpose::Links, Purpose::Api, Purpose::Nbd];

#[test]
fn two_nodes_of_a_cluster_know_one_another_whatever_it_is_for() {
    let site = Site::new();
    let (one, two) = (site.node(1), site.node(2));
    for purpose in ALL {
        let (here, there) = both(&one, &two, purpose);
        assert_eq!(here.peer(), Some(&Identity::Node(NodeId(2))), "{purpose:?}");
        assert_eq!(
            there.peer(),
            Some(&Identity::Node(NodeId(1))),
            "{purpose:?}"
        );
    }
}

#[test]
fn a_user_is_known_with_his_role_by_api_and_nbd_and_refused_between_nodes() {
    let site = Site::new();
    let (alice, node) = (site.user("alice", Role::Operator), site.node(2));
    for purpose in [Purpose::Api, Purpose::Nbd] {
        let (_, there) = both(&alice, &node, purpose);
        let Some(Identity::User { name, role }) = there.peer() else {
            panic!("{there:?}");
        };
        assert_eq!((name.as_str(), *role), ("alice", Role::Operator));
    }
    for purpose in [Purpose::Calls, Purpose::Links] {
        let (here, there) = both(&alice, &node, purpose);
        there.refused(&["a user's", "only nodes are served"]);
        here.refused(&[
            "does not take this side's certificate",
            "its log has the exact reason",
        ]);
    }
}

#[test]
fn a_user_cannot_pose_as_a_node_that_serves() {
    let site = Site::new();
    let (here, there) = both(
        &site.node(1),
        &site.user("mallory", Role::Admin),
        Purpose::Api,
    );
    here.refused(&["cannot be used here"]);
    there.refused(&["does not take this side's certificate"]);
}

#[test]
fn a_node_of_another_cluster_is_refused_with_both_clusters_named() {
    let (ours, theirs) = (Site::new(), Site::new());
    let (here, there) = both(&ours.node(1), &theirs.node(1), Purpose::Calls);
    let cluster = theirs.authority.root().cluster().to_string();
    here.refused(&["is of cluster", &cluster]);
    there.refused(&["it is of another cluster"]);
}

#[test]
fn a_client_of_another_authority_is_refused_on_both_sides() {
    // It trusts the server, as one would that was told the cluster's root, but its own certificate is foreign, under the same cluster's name.
    let hands = Hands::new();
    let ours = Site::of(&hands);
    let forged = Site {
        authority: Arc::new(Authority::new(
            ours.authority.root().cluster(),
            hands.clock(),
        )),
        hands: hands.clone(),
    };
    let token = ours.join_token(&["a:1".into()], DAY);
    let mut config = (*client_config_to_join(&token, &hands.clock())).clone();
    let pretends = forged.node(1);
    let shown = pretends.client_config_for(Purpose::Calls);
    config.client_auth_cert_resolver = shown.client_auth_cert_resolver.clone();
    let node = ours.node(2);
    let (here, there) = meet(Arc::new(config), (&node, Purpose::Links), &pretends);
    there.refused(&["issued by another authority"]);
    here.refused(&["does not know the authority", "another cluster"]);
}

#[test]
fn one_without_a_certificate_is_nobody_for_calls_and_api_and_refused_elsewhere() {
    let site = Site::new();
    let node = site.node(2);
    let token = site.join_token(&["a:1".into()], DAY);
    let config = client_config_to_join(&token, &site.hands.clock());
    for purpose in [Purpose::Calls, Purpose::Api] {
        let (here, there) = meet(config.clone(), (&node, purpose), &node);
        assert_eq!(here.peer(), Some(&Identity::Node(NodeId(2))));
        assert_eq!(there.peer(), None);
    }
    for purpose in [Purpose::Links, Purpose::Nbd] {
        let (here, there) = meet(config.clone(), (&node, purpose), &node);
        there.refused(&["showed no certificate", "join the cluster first"]);
        here.refused(&["asks for a certificate", "join first"]);
    }
}

#[test]
fn one_with_a_token_says_nothing_to_somebody_who_is_not_its_authority() {
    let (ours, theirs) = (Site::new(), Site::new());
    let token = ours.join_token(&["a:1".into()], DAY);
    let config = client_config_to_join(&token, &ours.hands.clock());
    let node = theirs.node(2);
    let (here, there) = meet(config, (&node, Purpose::Calls), &node);
    here.refused(&["not the one that the token was made for"]);
    there.refused(&["of another cluster"]);
}

#[test]
fn a_certificate_counts_in_its_time_and_a_little_beside_it() {
    let site = Site::new();
    let (one, two) = (site.node(1), site.node(2));
    let known = |there: &Knows| matches!(there, Knows::Peer(Some(_)));
    site.hands
        .move_on(NODE_LIFE + SKEW - Duration::from_secs(1));
    assert!(known(&both(&one, &two, Purpose::Calls).1));
    site.hands.move_on(Duration::from_secs(2));
    let (here, there) = both(&one, &two, Purpose::Calls);
    here.refused(&["the certificate ended at", "join again"]);
    there.refused(&["CertificateExpired", "set both clocks"]);
    // Before it begins: five minutes by the certificate, and five by the grace.
    site.hands
        .step_back(NODE_LIFE + 3 * SKEW - Duration::from_secs(5));
    assert!(known(&both(&one, &two, Purpose::Calls).1));
    site.hands.step_back(Duration::from_secs(10));
    both(&one, &two, Purpose::Calls)
        .0
        .refused(&["the certificate begins at", "set the clocks"]);
}

#[test]
fn a_client_whose_certificate_ran_out_is_told_so() {
    let site = Site::new();
    let old = site.node(1);
    site.hands.move_on(NODE_LIFE + DAY);
    let (here, there) = both(&old, &site.node(2), Purpose::Links);
    there.refused(&["the certificate ended at", "a new token"]);
    here.refused(&["found this side's certificate out of its time"]);
}

#[test]
fn a_renewed_certificate_is_shown_in_the_next_handshake_under_the_same_configurations() {
    let site = Site::new();
    let (one, two) = (site.node(1), site.node(2));
    let client = one.client_config_for(Purpose::Links);
    site.hands.move_on(25 * DAY);
    for keeper in [&one, &two] {
        let request = keeper.request().unwrap();
        let identity = keeper.current().identity().clone();
        let issued = site
            .authority
            .issue(request.der(), &identity, NODE_LIFE)
            .unwrap();
        keeper.install(request, issued.to_vec()).unwrap();
    }
    site.hands.move_on(25 * DAY);
    let (here, there) = meet(client, (&two, Purpose::Links), &one);
    assert_eq!(here.peer(), Some(&Identity::Node(NodeId(2))));
    assert_eq!(there.peer(), Some(&Identity::Node(NodeId(1))));
}

#[test]
fn a_request_does_not_choose_its_identity_or_its_kind_of_key() {
    let site = Site::new();
    let issue = |der: &[u8]| {
        site.authority
            .issue(der, &Identity::Node(NodeId(3)), NODE_LIFE)
    };
    let key = authority::new_key();
    let mut params = rcgen::CertificateParams::default();
    let uri = Identity::Node(NodeId(1)).uri(site.authority.root().cluster());
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.as_str().try_into().unwrap())];
    let refused = issue(params.serialize_request(&key).unwrap().der()).unwrap_err();
    assert!(matches!(refused, RequestError::Host(_)), "{refused}");
    let params = rcgen::CertificateParams::default();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let refused = issue(params.serialize_request(&other).unwrap().der()).unwrap_err();
    assert_eq!(refused, RequestError::Key);
    // One who asks to be an authority gets a node's certificate.
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issued = issue(params.serialize_request(&key).unwrap().der()).unwrap();
    assert!(Root::of(issued).is_err());
    let many: Vec<String> = (0..17).map(|at| format!("h{at}")).collect();
    assert_eq!(
        CertificateRequest::new(&many).unwrap_err(),
        RequestError::Hosts(17)
    );
    assert!(CertificateRequest::new(&["not a host".into()]).is_err());
    assert_eq!(issue(&[0; 9000]).unwrap_err(), RequestError::TooLong(9000));
}

#[test]
fn a_client_that_is_not_ours_finds_the_hosts_name_in_a_nodes_certificate() {
    let site = Site::new();
    let node = site.node(2);
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(site.authority.root().certificate().clone())
        .unwrap();
    let config = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clock = Arc::new(site.hands.clock());
        let builder = rustls::ClientConfig::builder_with_details(provider, clock);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots.clone());
        Arc::new(builder.with_no_client_auth())
    };
    for (name, known) in [
        ("localhost", true),
        ("127.0.0.1", true),
        ("elsewhere.lan", false),
    ] {
        let server = node.server_config_for(Purpose::Api);
        let mut there = Connection::Server(ServerConnection::new(server).unwrap());
        let client = ClientConnection::new(config(), name.try_into().unwrap()).unwrap();
        let mut here = Connection::Client(client);
        let (mut here_failed, mut there_failed) = (None, None);
        for _ in 0..4 {
            carry(&mut here, &mut there, &mut there_failed);
            carry(&mut there, &mut here, &mut here_failed);
        }
        assert_eq!(here_failed.is_none(), known, "{name}: {here_failed:?}");
    }
}

#[test]
fn what_a_handshake_costs_is_bounded() {
    let site = Site::new();
    let (one, two) = (site.node(1), site.node(2));
    let started = std::time::Instant::now();
    const TIMES: u32 = 50;
    for _ in 0..TIMES {
        assert!(both(&one, &two, Purpose::Links).1.peer().is_some());
    }
    let each = started.elapsed() / TIMES;
    eprintln!("both sides of a handshake: {each:?}");
    // 0.6 ms on this machine; what would need a thread of its own is more than this.
    assert!(each < Duration::from_millis(100), "{each:?}");
}
