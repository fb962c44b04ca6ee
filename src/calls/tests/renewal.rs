//! Certificates that renew themselves in the middle of traffic.

use super::*;
use crate::trust::tests::DAY;
use crate::trust::{Identity, NODE_LIFE};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn a_certificate_is_renewed_under_running_calls_which_notice_nothing() {
    run(async {
        let site = Site::new();
        let (keeper, other) = (site.node(1), site.node(2));
        let one = Node::start(Security::MutualTls(keeper.clone()), Limits::default()).await;
        let two = Node::start(Security::MutualTls(other.clone()), Limits::default()).await;
        one.knows(&two);
        two.echoes(Service::Report);
        two.calls.serve_renewals(site.authority.clone());
        // The member renews its own by itself.
        let member = two.calls.clone();
        let (kept, look) = (other.clone(), Duration::from_millis(5));
        let at_home =
            tokio::spawn(async move { member.keep_renewed(kept, || vec![TWO], look).await });
        let (calls, kept) = (one.calls.clone(), keeper.clone());
        // A node that is not there is passed over.
        let members = || vec![NodeId(99), TWO];
        let renews = tokio::spawn(async move { calls.keep_renewed(kept, members, look).await });

        let (answered, calls) = (Arc::new(AtomicU32::new(0)), one.calls.clone());
        let counted = answered.clone();
        let traffic = tokio::spawn(async move {
            loop {
                echo(&calls, TWO).await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
        });
        eventually("there is traffic", || answered.load(Ordering::Relaxed) > 20).await;
        let first = keeper.current().ends();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(keeper.current().ends(), first, "it is not due");
        // Four lives go by.
        for _ in 0..6 {
            let (before, theirs) = (keeper.current().ends(), other.current().ends());
            site.hands.move_on(21 * DAY);
            eventually("both are renewed", || {
                keeper.current().ends() > before && other.current().ends() > theirs
            })
            .await;
            assert_eq!(keeper.current().ends(), site.hands.now().plus(NODE_LIFE));
        }
        let before = answered.load(Ordering::Relaxed);
        eventually("the traffic goes on", || {
            answered.load(Ordering::Relaxed) > before + 20
        })
        .await;
        assert!(!traffic.is_finished(), "no call failed");
        // A connection that is made now shows the new ones: the old ones ran out long ago.
        one.calls.forget(TWO);
        traffic.abort();
        one.knows(&two);
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
        assert_eq!(two.calls.counts().tls_failed, 0);
        renews.abort();
        at_home.abort();
    });
}

#[test]
fn one_gets_a_certificate_for_who_he_is_and_only_where_that_is_proven() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        two.calls.serve_renewals(site.authority.clone());
        let request = crate::trust::CertificateRequest::new(&[]).unwrap();
        let answer = one
            .calls
            .call(TWO, Service::Trust, request.der().to_vec(), SOON)
            .await
            .unwrap();
        let root = site.authority.root().clone();
        let made = crate::trust::Credential::of(root, request, answer.into(), &site.hands.clock());
        assert_eq!(made.unwrap().identity(), &Identity::Node(ONE));
        let nonsense = one
            .calls
            .call(TWO, Service::Trust, vec![1, 2, 3], SOON)
            .await;
        assert_says(
            nonsense.unwrap_err(),
            &["the request for a certificate cannot be read"],
        );

        let (three, four) = (
            Node::start(plain(ONE), Limits::default()).await,
            Node::start(plain(TWO), Limits::default()).await,
        );
        three.knows(&four);
        four.calls.serve_renewals(site.authority.clone());
        let request = crate::trust::CertificateRequest::new(&[]).unwrap();
        let refused = three
            .calls
            .call(TWO, Service::Trust, request.der().to_vec(), SOON)
            .await;
        assert_says(refused.unwrap_err(), &["connections here are plain"]);
    });
}

#[test]
fn a_renewal_that_nobody_gives_leaves_what_there_is() {
    run(async {
        let site = Site::new();
        let keeper = site.node(1);
        let one = Node::start(Security::MutualTls(keeper.clone()), Limits::default()).await;
        let two = Node::of(&site, 2).await;
        one.knows(&two);
        site.hands.move_on(21 * DAY);
        let before = keeper.current().ends();
        let refused = one.calls.renew(&keeper, TWO).await.unwrap_err();
        assert_says(refused, &["does not serve Trust"]);
        // A member of the same cluster's name with another authority is not believed.
        let other = Site::of(&site.hands);
        two.calls.serve_renewals(other.authority.clone());
        let refused = one.calls.renew(&keeper, TWO).await.unwrap_err();
        assert_says(refused, &["the new certificate is not taken"]);
        assert_eq!(keeper.current().ends(), before);
    });
}
