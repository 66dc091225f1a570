//! Alerts.

use countersign_shared::{
    name::{AlertName, Id},
    random,
    time::Timestamp,
};

use super::{at, id};
use crate::{
    model::{AlertCause, AlertSeverity, Finding},
    store::{Store, StoreError},
};

fn finding(severity: AlertSeverity) -> Finding {
    Finding {
        cause: AlertCause::MtlsNotEnforced,
        resource: "accounts/acme/destinations/orders".to_owned(),
        severity,
        message: "Make it ask.".to_owned(),
    }
}

fn name(seconds: i64) -> AlertName {
    Id::from(random::uuid_v7(at(seconds))).into()
}

pub(super) async fn alerts(store: &impl Store) {
    let warning = finding(AlertSeverity::Warning);
    let opened = store
        .raise_alert(name(10), warning.clone(), at(10))
        .await
        .unwrap()
        .unwrap();
    let again = store
        .raise_alert(name(11), warning.clone(), at(11))
        .await
        .unwrap();
    assert_eq!(again, None, "one alert for one cause");
    let acknowledged = store.acknowledge_alert(&opened.name, at(12)).await.unwrap();
    assert_eq!(acknowledged.acknowledged_at, Some(at(12)));
    assert_eq!(
        store.acknowledge_alert(&opened.name, at(13)).await.unwrap(),
        acknowledged
    );

    let worse = finding(AlertSeverity::Critical);
    let risen = store
        .raise_alert(name(14), worse, at(14))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (&risen.name, risen.acknowledged_at),
        (&opened.name, None),
        "news again"
    );
    assert_eq!(
        store.open_alert_counts().await.unwrap(),
        [(AlertCause::MtlsNotEnforced, 1)]
    );

    let resource = &warning.resource;
    let resolve = |seconds| store.resolve_alert(AlertCause::MtlsNotEnforced, resource, at(seconds));
    let resolved = resolve(15).await.unwrap().unwrap();
    assert_eq!(resolved.resolved_at, Some(at(15)));
    assert_eq!(resolve(16).await.unwrap(), None);
    let anew = store
        .raise_alert(name(20), warning.clone(), at(20))
        .await
        .unwrap()
        .unwrap();
    assert_ne!(
        anew.name, opened.name,
        "a cause that comes back is a new alert"
    );
    let open = store.alerts(None, false, 10).await.unwrap();
    assert_eq!(open.items, std::slice::from_ref(&anew));
    let all = store.alerts(None, true, 1).await.unwrap();
    assert!(all.more);
    let older = store.alerts(Some(anew.name), true, 1).await.unwrap();
    assert_eq!(older.items, [resolved]);
    let unknown = store.acknowledge_alert(&id("nobody").into(), at(1)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))));
}

pub(super) async fn expiring(store: &impl Store) {
    let end = Timestamp::from_unix_seconds(2);
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.expiring(end, after, 2).await.unwrap();
        found.extend(page.items.iter().map(|item| item.resource.clone()));
        after = page.items.last().cloned();
        if !page.more {
            break;
        }
    }
    let orders = "accounts/acme/destinations/orders/clientCertificates/1";
    for expected in [
        orders,
        "accounts/acme/certificateAuthorities/1",
        "certificateAuthorities/root-1",
        "certificateAuthorities/1",
    ] {
        let times = found
            .iter()
            .filter(|resource| *resource == expected)
            .count();
        assert_eq!(times, 1, "{expected}: {found:?}");
    }
    assert!(
        store
            .expiring(at(1), None, 9)
            .await
            .unwrap()
            .items
            .is_empty(),
        "none ends so soon"
    );
    let cause = AlertCause::ClientCertificateExpires;
    let found = store.end_of(cause, orders).await.unwrap().unwrap();
    assert_eq!((found.not_before, found.not_after), (Some(at(1)), end));
    assert_eq!((found.cause, found.resource.as_str()), (cause, orders));
    let gone = "accounts/acme/destinations/orders/clientCertificates/9";
    assert_eq!(store.end_of(cause, gone).await.unwrap(), None);
}
