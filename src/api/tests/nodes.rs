//! Nodes over the API, at one that is alone: what it shows, and what it refuses.

use super::*;

#[test]
fn a_node_alone_shows_itself_and_has_nobody_who_takes_its_part() {
    world("node-alone", async |world| {
        let mut client = world.client();
        let all = client.cluster_nodes().await.unwrap().nodes;
        assert_eq!(all.len(), 1);
        let node = client.cluster_node("a").await.unwrap();
        assert_eq!(client.cluster_node("1").await.unwrap(), node);
        assert_eq!((node.seen.name.as_str(), &*node.seen.role), ("a", "alone"));
        assert_eq!((node.disks.clone(), node.pgs), (vec![1], 32));
        assert_eq!(node.data, NodeData::Taking);
        let drain = refused(client.drain_node("a", &NodeDrain::default()).await);
        let on = NodeMaintenance {
            maintenance: Switch::On,
            for_seconds: None,
            dry_run: false,
        };
        let on = refused(client.set_maintenance("a", &on).await);
        let remove = refused(client.remove_node("a", NodeRemove::default()).await);
        for error in [drain, on, remove] {
            assert_eq!(error.code, ErrorCode::Conflict, "{error}");
            assert!(error.message.contains("alone"), "{error}");
        }
        assert_eq!(client.cluster_node("a").await.unwrap(), node);
    });
}

#[test]
fn a_node_that_is_not_there_and_odd_requests_are_refused_with_the_field() {
    world("node-odd", async |world| {
        let mut client = world.client();
        let unknown = refused(client.cluster_node("b").await);
        assert_eq!(unknown.code, ErrorCode::NotFound);
        assert!(unknown.hint.contains("sarsen node list"), "{unknown}");
        for (method, path, body, field) in [
            ("POST", "a/drain", r#"{"undone":true}"#, "undone"),
            ("POST", "a/maintenance", r#"{"maintenance":"soon"}"#, "body"),
            ("POST", "a/rack", r#"{"shelf":"1"}"#, "shelf"),
            ("DELETE", "a?force=perhaps", "", "query"),
        ] {
            let path = format!("/v1/cluster/nodes/{path}");
            let (status, error) = world.error(method, &path, "", body).await;
            assert_eq!((status, error.field.as_str()), (400, field), "{error}");
        }
    });
}

#[test]
fn a_node_stands_in_a_rack_and_in_none_again() {
    world("node-rack", async |world| {
        let mut client = world.client();
        let rack = |name: Option<&str>| NodeRack {
            rack: name.map(str::to_owned),
        };
        let stands = client.set_rack("a", &rack(Some("r1"))).await.unwrap();
        assert_eq!(stands.rack.as_deref(), Some("r1"));
        let again = client.set_rack("1", &rack(Some("r1"))).await.unwrap();
        assert_eq!(again, stands);
        let odd = refused(client.set_rack("a", &rack(Some("../r"))).await);
        assert_eq!((odd.code, odd.field.as_str()), (ErrorCode::Invalid, "rack"));
        let none = client.set_rack("a", &rack(None)).await.unwrap();
        assert_eq!(none.rack, None);
    });
}
