//! Receivers that refuse the active certificate: the attempt goes on with the one before, and what
//! was learnt is kept until the next bundle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{
    bench::Bench,
    parties::{Pki, credential},
    pki::Leaf,
    receiver::{Receiver, Setup, answer},
};
use countersign_shared::{bundle::Bundle, class::FailureClass as Class, outcome::Outcome};

const NEW: u32 = 8;
const OLD: u32 = 7;

/// A bundle with `active` as its newest certificate and `fallback` as the one before.
fn rotating(pki: &Pki, url: &str, active: &Leaf, fallback: &Leaf) -> Bundle {
    Bundle {
        active: credential(NEW, active),
        fallback: Some(credential(OLD, fallback)),
        ..pki.bundle(url)
    }
}

fn presented(outcome: &Outcome) -> u32 {
    let record = outcome.handshake.as_ref().unwrap();
    record.presented.as_ref().unwrap().version
}

/// A receiver that answers the certificate `leaf` with this status and page while `refuses`, and 204
/// otherwise.
async fn choosy(
    bench: &Bench,
    pki: &Pki,
    leaf: &Leaf,
    refuses: &Arc<AtomicBool>,
    (status, page): (u16, &'static str),
) -> Receiver {
    let (leaf, refuses) = (leaf.certificate.clone(), Arc::clone(refuses));
    Receiver::answering(&bench.tasks, pki.strict().config(), move |received| {
        let refused = received.client[0] == leaf && refuses.load(Ordering::SeqCst);
        let (status, page) = if refused { (status, page) } else { (204, "") };
        std::future::ready(answer(status, page))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_refused_by_an_alert_costs_no_delivery() {
    let pki = Pki::new();
    let setups: [fn(&Pki) -> Setup<'_>; 3] = [
        |pki| pki.strict(),
        |pki| pki.strict().tls12(),
        |pki| pki.strict().h2(),
    ];
    for setup in setups {
        let mut bench = Bench::new();
        let receiver = Receiver::start(&bench.tasks, setup(&pki).config(), 204).await;
        let (new, old) = (pki.stranger.client(), pki.account.client());
        let bundle = rotating(&pki, &receiver.url(), &new, &old);
        bench.install(bundle.clone());

        let first = bench.deliver(vec![b'x'; 100_000]).await;
        assert_eq!(first.class, Class::Delivered, "{first:?}");
        assert_eq!(presented(&first), OLD);
        let refused = first.refused.unwrap();
        let class = Class::ClientCaNotTrusted;
        assert_eq!((refused.version, refused.class), (NEW, class));
        let record = refused.handshake.unwrap();
        assert_eq!(record.presented.unwrap().serial, new.serial());
        assert_eq!(record.alert.unwrap().number, 48);
        assert_eq!(receiver.connections(), 2);

        // The next does not try in vain, and tells of the refusal all the same.
        let second = bench.deliver("x").await;
        assert_eq!((second.class, presented(&second)), (Class::Delivered, OLD));
        let refused = second.refused.unwrap();
        assert_eq!((refused.version, refused.class), (NEW, class));
        assert!(second.handshake.unwrap().connection_reused && refused.handshake.is_none());
        assert_eq!(receiver.connections(), 2);
        assert_eq!(bench.metrics.fallbacks.get(), 2);

        // The next bundle starts afresh; the fallback keeps its connection.
        bench.install(bundle);
        let third = bench.deliver("x").await;
        assert!(third.refused.unwrap().handshake.is_some());
        assert!(third.handshake.unwrap().connection_reused);
        assert_eq!(receiver.connections(), 3);
        assert!(
            bench.activations.try_recv().is_err(),
            "the new one never worked"
        );
        assert_eq!(receiver.requests().len(), 3);
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_refused_in_an_answer_costs_no_delivery() {
    let pki = Pki::new();
    let missing = "<html><head><title>400 No required SSL certificate was sent</title>";
    let wrong = "<html><head><title>400 The SSL certificate error</title></head>";
    for (answered, class) in [
        ((403, ""), Class::ClientIdentityForbidden),
        ((400, missing), Class::ClientCertificateRequired),
        ((400, wrong), Class::ClientCertificateRejected),
    ] {
        let mut bench = Bench::new();
        let (new, old) = (pki.account.client(), pki.account.client());
        let refuses = Arc::new(AtomicBool::new(true));
        let receiver = choosy(&bench, &pki, &new, &refuses, answered).await;
        bench.install(rotating(&pki, &receiver.url(), &new, &old));
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
        assert_eq!(outcome.http_status, Some(204));
        assert_eq!(presented(&outcome), OLD);
        assert_eq!(outcome.refused.unwrap().class, class);
        // The same delivery, twice.
        let ids: Vec<_> = receiver.requests();
        assert_eq!(ids.len(), 2);
        assert_eq!(ids[0].headers["webhook-id"], ids[1].headers["webhook-id"]);
        assert!(bench.activations.try_recv().is_err());
        bench.stop().await;
    }
}

#[tokio::test]
async fn when_both_are_refused_the_outcome_is_of_the_active_one() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let (new, old) = (pki.stranger.client(), pki.stranger.client());
    bench.install(rotating(&pki, &receiver.url(), &new, &old));
    for connections in [2, 4] {
        let outcome = bench.deliver("x").await;
        assert_eq!(outcome.class, Class::ClientCaNotTrusted, "{outcome:?}");
        assert_eq!(presented(&outcome), NEW);
        assert_eq!(outcome.refused, None);
        assert_eq!(receiver.connections(), connections);
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_receiver_that_comes_to_take_the_new_one_and_not_the_old_gets_the_new_one() {
    let (mut bench, pki) = (Bench::new(), Pki::new());
    let (new, old) = (pki.account.client(), pki.account.client());
    let (refuses_new, refuses_old) = (Arc::new(AtomicBool::new(true)), AtomicBool::new(false));
    let (sees_new, sees_old) = (Arc::clone(&refuses_new), Arc::new(refuses_old));
    let refuses_old = Arc::clone(&sees_old);
    let newest = new.certificate.clone();
    let config = pki.strict().config();
    let receiver = Receiver::answering(&bench.tasks, config, move |received| {
        let which = if received.client[0] == newest {
            &sees_new
        } else {
            &sees_old
        };
        let status = if which.load(Ordering::SeqCst) {
            403
        } else {
            204
        };
        std::future::ready(answer(status, ""))
    })
    .await;
    bench.install(rotating(&pki, &receiver.url(), &new, &old));
    assert!(bench.deliver("x").await.refused.is_some());
    refuses_new.store(false, Ordering::SeqCst);
    refuses_old.store(true, Ordering::SeqCst);

    let outcome = bench.deliver("x").await;
    assert_eq!(
        (outcome.class, presented(&outcome)),
        (Class::Delivered, NEW)
    );
    assert_eq!(outcome.refused, None);
    assert!(bench.activations.recv().await.is_some());
    // From now on the new one is first.
    let before = receiver.requests().len();
    assert_eq!(presented(&bench.deliver("x").await), NEW);
    assert_eq!(receiver.requests().len(), before + 1);
    bench.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_falls_back_and_an_expired_fallback_is_not_used() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let (good, expired) = (pki.account.client(), pki.account.expired_client());
    bench.install(rotating(&pki, &receiver.url(), &expired, &good));
    let outcome = bench.deliver("x").await;
    assert_eq!(
        (outcome.class, presented(&outcome)),
        (Class::Delivered, OLD)
    );
    let refused = outcome.refused.unwrap();
    assert_eq!(refused.class, Class::ClientCertificateExpired);
    assert_eq!((refused.version, refused.handshake), (NEW, None));
    assert_eq!(receiver.connections(), 1);

    let stranger = pki.stranger.client();
    bench.install(rotating(&pki, &receiver.url(), &stranger, &expired));
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::ClientCaNotTrusted);
    assert_eq!((presented(&outcome), outcome.refused), (NEW, None));
    assert_eq!(receiver.connections(), 2);
    bench.stop().await;
}

#[tokio::test]
async fn nothing_more_is_tried_in_the_last_second() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let (new, old) = (pki.stranger.client(), pki.account.client());
    bench.install(Bundle {
        attempt_timeout: Duration::from_secs(1),
        ..rotating(&pki, &receiver.url(), &new, &old)
    });
    let outcome = bench.deliver("x").await;
    assert_eq!(outcome.class, Class::ClientCaNotTrusted, "{outcome:?}");
    assert_eq!((presented(&outcome), outcome.refused), (NEW, None));
    assert_eq!(receiver.connections(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn certificates_keep_their_connections_when_their_roles_change() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let receiver = Receiver::start(&bench.tasks, pki.strict().config(), 204).await;
    let (new, old) = (pki.account.client(), pki.account.client());
    let before = Bundle {
        active: credential(OLD, &old),
        candidate: Some(credential(NEW, &new)),
        ..pki.bundle(&receiver.url())
    };
    bench.install(before.clone());
    bench.deliver("x").await;
    bench.install(rotating(&pki, &receiver.url(), &new, &old));
    assert_eq!(presented(&bench.deliver("x").await), NEW);
    bench.install(before);
    let outcome = bench.deliver("x").await;
    assert_eq!(presented(&outcome), OLD);
    assert!(outcome.handshake.unwrap().connection_reused);
    assert_eq!(receiver.connections(), 2);
    bench.stop().await;
}

#[tokio::test]
async fn a_bad_certificate_on_standby_refuses_the_bundle() {
    let (bench, pki) = (Bench::new(), Pki::new());
    let good = pki.bundle("https://a.example/");
    let mut bad = credential(9, &pki.account.client());
    bad.private_key = pki.account.client().key.into();
    let candidate = Bundle {
        candidate: Some(bad.clone()),
        ..good.clone()
    };
    let fallback = Bundle {
        fallback: Some(bad),
        ..good
    };
    for (bundle, named) in [(candidate, "candidate"), (fallback, "fallback")] {
        let error = bench.try_install(bundle).unwrap_err().to_string();
        assert!(error.starts_with(named), "{error}");
        assert!(error.contains("not for the private key"), "{error}");
    }
    bench.stop().await;
}
