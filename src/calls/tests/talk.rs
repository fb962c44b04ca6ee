//! Calls that work, and how they end where they do not.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

#[test]
fn a_call_is_answered_by_who_is_meant_and_he_knows_who_asked() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        two.calls
            .handle(Service::Manager, |caller, body| async move {
                Ok(format!("{:?} said {}", caller.node, body.len()).into_bytes())
            });
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
        let told = one
            .calls
            .call(TWO, Service::Manager, vec![0; 9], SOON)
            .await
            .unwrap();
        assert_eq!(String::from_utf8(told).unwrap(), "Some(NodeId(1)) said 9");
        let counts = two.calls.counts();
        assert_eq!(
            (counts.welcomed, counts.calls),
            (2, 2),
            "a connection for each class"
        );
        let refused = one
            .calls
            .call(TWO, Service::Catalog, Vec::new(), SOON)
            .await;
        let service = Service::Catalog;
        assert_eq!(refused, Err(CallError::Unsupported { service }));
    });
}

#[test]
fn plain_calls_are_the_same_on_loopback() {
    run(async {
        let one = Node::start(plain(ONE), Limits::default()).await;
        let two = Node::start(plain(TWO), Limits::default()).await;
        one.knows(&two);
        two.echoes(Service::Report);
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
        assert!(!one.calls.is_authenticated());
    });
}

#[test]
fn a_node_can_call_itself() {
    run(async {
        let one = Node::start(plain(ONE), Limits::default()).await;
        one.echoes(Service::Report);
        assert_eq!(echo(&one.calls, ONE).await.unwrap(), b"hello");
        assert_eq!(one.calls.counts().accepted, 0);
        one.calls.stop_handling(Service::Report);
        assert!(matches!(
            echo(&one.calls, ONE).await,
            Err(CallError::Unsupported { .. })
        ));
    });
}

#[test]
fn a_thousand_calls_in_flight_are_answered_in_any_order_each_with_its_own() {
    run(async {
        const CALLS: u32 = 1000;
        let site = Site::new();
        let (one, two) = pair(&site).await;
        // All of them have come before one is answered; then they go in an order that is drawn.
        let waiting: Arc<Mutex<Vec<oneshot::Sender<()>>>> = Arc::default();
        let held = waiting.clone();
        two.calls.handle(Service::Lease, move |_, body| {
            let (go, gone) = oneshot::channel();
            let mut held = held.lock().unwrap();
            held.push(go);
            if held.len() == CALLS as usize {
                let mut all: Vec<_> = held.drain(..).collect();
                let mut prng = crate::base::Prng::new(7);
                while !all.is_empty() {
                    let at = prng.below(all.len() as u64) as usize;
                    all.swap_remove(at).send(()).unwrap();
                }
            }
            async move {
                gone.await.map_err(|_| "forgotten".to_owned())?;
                Ok(body)
            }
        });
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..CALLS {
            let calls = one.calls.clone();
            tasks.spawn(async move {
                let body = number.to_le_bytes().to_vec();
                let answer = calls.call(TWO, Service::Lease, body.clone(), SOON).await;
                assert_eq!(answer, Ok(body));
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(two.calls.counts().welcomed, 1, "all over one connection");
    });
}

#[test]
fn more_calls_than_the_other_side_works_on_wait_here_and_then_go() {
    run(async {
        let site = Site::new();
        let limits = Limits {
            in_progress_max: 4,
            ..Limits::default()
        };
        let one = Node::of(&site, 1).await;
        let two = Node::start(Security::MutualTls(site.node(2)), limits).await;
        one.knows(&two);
        let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let seen = most.clone();
        two.calls.handle(Service::Report, move |_, body| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                sleep(Duration::from_millis(2)).await;
                now.fetch_sub(1, Ordering::Relaxed);
                Ok(body)
            }
        });
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let calls = one.calls.clone();
            tasks.spawn(async move { echo(&calls, TWO).await.unwrap() });
        }
        assert_eq!(tasks.join_all().await.len(), 100);
        assert_eq!(seen.load(Ordering::Relaxed), 4);
    });
}

#[test]
fn what_is_told_while_a_node_that_moves_is_dialled_is_said_at_its_new_address() {
    run(async {
        let site = Site::new();
        let limits = Limits {
            handshake: Duration::from_millis(300),
            ..Limits::default()
        };
        let one = Node::start(Security::MutualTls(site.node(1)), limits).await;
        let two = Node::of(&site, 2).await;
        let heard = Arc::new(AtomicU32::new(0));
        let hears = heard.clone();
        two.calls.handle(Service::Lease, move |_, body| {
            hears.fetch_add(body.len() as u32, Ordering::Relaxed);
            async { Ok(Vec::new()) }
        });
        // Accepts and says nothing.
        let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = before.local_addr().unwrap();
        one.calls.set_addresses(TWO, &[address]).unwrap();
        for len in 1..=3 {
            one.calls.tell(TWO, Service::Lease, vec![0; len]).unwrap();
        }
        one.knows(&two);
        eventually("all was heard", || heard.load(Ordering::Relaxed) == 6).await;
    });
}

#[test]
fn what_waits_for_a_connection_is_bounded_in_bytes() {
    run(async {
        let site = Site::new();
        let (one, _two) = pair(&site).await;
        let tell = |len| one.calls.tell(TWO, Service::Snapshot, vec![0; len]);
        for _ in 0..4 {
            tell(BODY_MAX).unwrap();
        }
        let full = tell(1);
        assert!(matches!(full, Err(CallError::Busy { .. })), "{full:?}");
    });
}

#[test]
fn of_bulk_as_many_calls_are_worked_on_as_fit_whole_into_memory() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let (now, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (begun, goes) = (now.clone(), go.clone());
        two.calls.handle(Service::Snapshot, move |_, body| {
            let (begun, goes) = (begun.clone(), goes.clone());
            async move {
                let before = begun.fetch_add(1, Ordering::Relaxed);
                assert!(before < 16, "16 times 4 MiB are 64 MiB");
                goes.notified().await;
                begun.fetch_sub(1, Ordering::Relaxed);
                goes.notify_one();
                Ok(body)
            }
        });
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..100u8 {
            let calls = one.calls.clone();
            tasks.spawn(async move {
                let answer = calls.call(TWO, Service::Snapshot, vec![number], SOON).await;
                assert_eq!(answer, Ok(vec![number]));
            });
        }
        let begun = || now.load(Ordering::Relaxed) == 16;
        eventually("as many as may are worked on", begun).await;
        go.notify_one();
        assert_eq!(tasks.join_all().await.len(), 100);
    });
}

#[test]
fn what_one_asks_of_oneself_is_bounded_as_with_others() {
    run(async {
        let site = Site::new();
        let one = Node::of(&site, 1).await;
        one.calls.handle(Service::Report, |_, body| async move {
            Ok(vec![0; BODY_MAX + usize::from(body.len() == 1)])
        });
        let ask = |len| one.calls.call(ONE, Service::Report, vec![0; len], SOON);
        let too_large = Err(CallError::TooLarge { len: BODY_MAX + 1 });
        assert_eq!(ask(BODY_MAX + 1).await, too_large);
        assert_eq!(ask(1).await, too_large);
        assert_eq!(ask(BODY_MAX).await.unwrap().len(), BODY_MAX);
    });
}

#[test]
fn a_call_that_times_out_is_forgotten_on_both_sides_and_others_go_on() {
    run(async {
        struct Dropped(Arc<Notify>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (started, ended) = (begun.clone(), dropped.clone());
        two.calls.handle(Service::Catalog, move |_, _| {
            let (started, guard) = (started.clone(), Dropped(ended.clone()));
            async move {
                let _guard = guard;
                started.notify_one();
                std::future::pending().await
            }
        });
        let within = Duration::from_millis(300);
        let slow = one.calls.call(TWO, Service::Catalog, Vec::new(), within);
        let both = tokio::join!(slow, echo(&one.calls, TWO));
        assert_eq!(
            both,
            (Err(CallError::TimedOut { within }), Ok(b"hello".to_vec()))
        );
        dropped.notified().await;
        // One that nobody waits for any more, long before its time.
        begun.notified().await;
        {
            let call = one.calls.call(TWO, Service::Catalog, Vec::new(), SOON);
            tokio::select! {
                _ = call => panic!("nobody answers it"),
                () = begun.notified() => {}
            }
        }
        dropped.notified().await;
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
    });
}

#[test]
fn a_handler_that_refuses_or_fails_says_so_at_once() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        two.calls.handle(Service::Lease, |_, body| async move {
            match body.first() {
                Some(0) => Err("not today: the disk is in maintenance".to_owned()),
                Some(1) => panic!("a mistake, on purpose"),
                _ => Ok(vec![0; BODY_MAX + 1]),
            }
        });
        let ask = |what| one.calls.call(TWO, Service::Lease, vec![what], SOON);
        assert_says(ask(0).await.unwrap_err(), &["it refused", "in maintenance"]);
        let failed = ask(1).await.unwrap_err();
        assert!(
            matches!(failed, CallError::Unreachable { .. }),
            "it may have been done: {failed:?}"
        );
        assert_says(failed, &["the handler failed"]);
        assert_says(ask(2).await.unwrap_err(), &["4194305 bytes"]);
        let long = one
            .calls
            .call(TWO, Service::Lease, vec![0; BODY_MAX + 1], SOON)
            .await;
        assert_eq!(long, Err(CallError::TooLarge { len: BODY_MAX + 1 }));
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
    });
}

#[test]
fn the_largest_bodies_go_there_and_back() {
    run(async {
        let site = Site::new();
        let (one, _two) = pair(&site).await;
        let body: Vec<u8> = (0..BODY_MAX).map(|at| (at * 7 / 3) as u8).collect();
        let answer = one
            .calls
            .call(TWO, Service::Report, body.clone(), SOON)
            .await;
        assert!(answer.unwrap() == body);
    });
}

#[test]
fn urgent_calls_do_not_wait_behind_bulk() {
    run(async {
        let site = Site::new();
        let limits = Limits {
            bytes_max: BODY_MAX,
            stall: SOON,
            ..Limits::default()
        };
        let one = Node::start(Security::MutualTls(site.node(1)), limits.clone()).await;
        let two = Node::start(Security::MutualTls(site.node(2)), limits).await;
        one.knows(&two);
        two.echoes(Service::Lease);
        let (begun, go) = (
            Arc::new(Notify::new()),
            Arc::new(tokio::sync::Semaphore::new(0)),
        );
        let (starts, goes) = (begun.clone(), go.clone());
        two.calls.handle(Service::Snapshot, move |_, body| {
            let (starts, goes) = (starts.clone(), goes.clone());
            async move {
                starts.notify_one();
                goes.acquire().await.unwrap().forget();
                Ok(body)
            }
        });
        let mut bulk = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let calls = one.calls.clone();
            bulk.spawn(async move {
                let body = vec![3; BODY_MAX];
                let sent = calls.call(TWO, Service::Snapshot, body, SOON).await;
                assert_eq!(sent.unwrap().len(), BODY_MAX);
            });
        }
        let lease = || one.calls.call(TWO, Service::Lease, vec![1; 64], SOON);
        // One snapshot is worked on, and there is a place for no other: they wait at the caller.
        begun.notified().await;
        for _ in 0..50 {
            lease().await.unwrap();
        }
        assert!(bulk.try_join_next().is_none(), "nothing went through there");
        // And while 256 MiB go there and back.
        go.add_permits(64);
        let (mut slowest, mut leases) = (Duration::ZERO, 0);
        let started = Instant::now();
        while !bulk.is_empty() {
            let before = Instant::now();
            lease().await.unwrap();
            slowest = slowest.max(before.elapsed());
            leases += 1;
            while bulk.try_join_next().is_some_and(|done| done.is_ok()) {}
        }
        let all = started.elapsed();
        eprintln!("{leases} leases beside 512 MiB in {all:?}; the slowest took {slowest:?}");
        assert!(leases > 100, "{leases} leases in {all:?}");
    });
}

#[test]
fn what_is_told_arrives_without_an_answer_and_before_the_connection_is_there() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let hears = heard.clone();
        two.calls.handle(Service::Lease, move |_, body| {
            hears.lock().unwrap().push(body[0]);
            async { Ok(Vec::new()) }
        });
        // The first begins to dial; up to 64 wait for that.
        for number in 0..64 {
            one.calls.tell(TWO, Service::Lease, vec![number]).unwrap();
        }
        let full = one.calls.tell(TWO, Service::Lease, vec![99]);
        assert!(matches!(full, Err(CallError::Busy { .. })), "{full:?}");
        eventually("all were heard", || heard.lock().unwrap().len() == 64).await;
        assert!(
            heard.lock().unwrap().is_sorted(),
            "in the order in which they were told"
        );
        one.calls.tell(TWO, Service::Lease, vec![64]).unwrap();
        eventually("one more was heard", || heard.lock().unwrap().len() == 65).await;
    });
}

#[test]
fn calls_fail_at_once_when_their_connection_is_lost_and_work_again_when_the_node_is_back() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let begun = Arc::new(Notify::new());
        let started = begun.clone();
        two.calls.handle(Service::Report, move |_, _| {
            started.notify_one();
            std::future::pending()
        });
        let at = two.address();
        let waits = async {
            let answer = echo(&one.calls, TWO).await;
            (answer, Instant::now())
        };
        let goes = async {
            begun.notified().await;
            drop(two);
            Instant::now()
        };
        let ((answer, ended), dropped) = tokio::join!(waits, goes);
        assert!(
            matches!(answer, Err(CallError::Unreachable { .. })),
            "{answer:?}"
        );
        assert!(ended.duration_since(dropped) < Duration::from_secs(5));
        // Nobody is there: that is said at once, not after the time of the call.
        let before = Instant::now();
        let refused = echo(&one.calls, TWO).await.unwrap_err();
        assert_says(&refused, &["cannot be reached", &at.to_string()]);
        assert!(
            before.elapsed() < Duration::from_secs(5),
            "{:?}",
            before.elapsed()
        );

        let calls = Calls::new(Security::MutualTls(site.node(2)), Limits::default()).unwrap();
        let back = Node::listen(calls, at).await;
        back.echoes(Service::Report);
        let again = timeout(SOON, async {
            while echo(&one.calls, TWO).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        again.await.expect("it is dialled again by itself");
    });
}

#[test]
fn a_node_that_cannot_be_reached_is_not_dialled_ever_again() {
    run(async {
        // A listener that hangs up: each trial is seen.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let dialled = Arc::new(AtomicU32::new(0));
        let counted = dialled.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let limits = Limits {
            back_off_min: Duration::from_millis(100),
            back_off_max: Duration::from_millis(400),
            ..Limits::default()
        };
        let one = Node::start(plain(ONE), limits).await;
        one.calls.set_addresses(TWO, &[at]).unwrap();
        let started = Instant::now();
        let mut calls = 0;
        while started.elapsed() < Duration::from_millis(1500) {
            echo(&one.calls, TWO).await.unwrap_err();
            calls += 1;
            sleep(Duration::from_millis(2)).await;
        }
        // 0, 100, 300, 700, 1100, 1500 ms; a slow machine has fewer.
        let dialled = dialled.load(Ordering::Relaxed);
        assert!(
            (1..=7).contains(&dialled) && calls > dialled,
            "{dialled} of {calls}"
        );
    });
}

#[test]
fn a_node_is_followed_to_its_new_address_and_forgotten_when_it_is_gone() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        echo(&one.calls, TWO).await.unwrap();
        let elsewhere = Node::of(&site, 2).await;
        elsewhere
            .calls
            .handle(Service::Report, |_, _| async { Ok(b"elsewhere".to_vec()) });
        one.knows(&elsewhere);
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"elsewhere");
        // The second of its addresses will do.
        let addresses = ["127.0.0.1:1".parse().unwrap(), two.address()];
        one.calls.set_addresses(TWO, &addresses).unwrap();
        assert_eq!(echo(&one.calls, TWO).await.unwrap(), b"hello");
        one.calls.forget(TWO);
        assert_says(
            echo(&one.calls, TWO).await.unwrap_err(),
            &["no address of node 2 is known"],
        );
        assert!(one.calls.tell(TWO, Service::Lease, Vec::new()).is_err());
    });
}

#[test]
fn a_quiet_connection_stays() {
    run(async {
        let limits = Limits {
            beat: Duration::from_millis(100),
            silence: Duration::from_secs(4),
            ..Limits::default()
        };
        let one = Node::start(plain(ONE), limits.clone()).await;
        let two = Node::start(plain(TWO), limits).await;
        one.knows(&two);
        two.echoes(Service::Report);
        echo(&one.calls, TWO).await.unwrap();
        sleep(Duration::from_secs(6)).await;
        echo(&one.calls, TWO).await.unwrap();
        let counts = two.calls.counts();
        assert_eq!((counts.accepted, counts.silent), (1, 0));
    });
}

#[test]
fn calls_work_on_the_daemons_runtime() {
    tokio_uring::start(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        let mut links = two.calls.links();
        let both = tokio::join!(echo(&one.calls, TWO), one.calls.link(TWO, 3), links.recv());
        assert_eq!(both.0.unwrap(), b"hello");
        assert_eq!((both.1.unwrap().shard, both.2.unwrap().peer), (3, ONE));
    });
}

#[test]
fn leases_have_a_connection_of_their_own_which_is_made_before_anything_is_asked() {
    run(async {
        let site = Site::new();
        let (one, two) = pair(&site).await;
        for service in [Service::Lease, Service::Manager] {
            two.echoes(service);
        }
        for _ in 0..3 {
            one.calls.connect(TWO, Service::Lease).await.unwrap();
        }
        let calls = &two.calls;
        let welcomed = |count| move || calls.counts().welcomed == count;
        eventually("it is made once", welcomed(1)).await;
        let say = async |service| one.calls.call(TWO, service, vec![1], SOON).await.unwrap();
        say(Service::Lease).await;
        assert_eq!(two.calls.counts().welcomed, 1, "it was there");
        say(Service::Manager).await;
        eventually("Raft has another one", welcomed(2)).await;
        one.calls.connect(ONE, Service::Lease).await.unwrap();
        let nobody = one
            .calls
            .connect(NodeId(9), Service::Lease)
            .await
            .unwrap_err();
        assert_says(nobody, &["no address of node 9"]);
    });
}
