//! What the control plane says of the deliveries: counters while it works, and records at the end.

use std::{collections::HashMap, net::SocketAddr};

use countersign_proto::v1;
use countersign_shared::wire;

use super::{
    failure::Failure,
    join::Settled,
    records::{DeliveryNumber, delivery_number},
};
use crate::local::{http, provision::Administrator};

const ACCEPTED: &str = "countersign_deliveries_accepted_total";
const DELIVERED: &str = "countersign_attempts_total{class=\"DELIVERED\"}";

/// Counters of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    /// Deliveries accepted.
    pub(crate) accepted: u64,
    /// Deliveries settled as delivered.
    pub(crate) delivered: u64,
}

/// Reads the metrics page.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    client: reqwest::Client,
    urls: Vec<String>,
}

impl Metrics {
    /// Of the control planes whose HTTP addresses these are.
    ///
    /// # Errors
    /// When the client can't be made.
    pub(crate) fn new(all: impl IntoIterator<Item = SocketAddr>) -> Result<Self, Failure> {
        let url = |http| format!("http://{http}/metrics");
        Ok(Self {
            client: http::client()?,
            urls: all.into_iter().map(url).collect(),
        })
    }

    /// What they are now, of all control planes together.
    ///
    /// # Errors
    /// When the page is not served.
    pub(crate) async fn counters(&self) -> Result<Counters, Failure> {
        let mut all = Counters::default();
        for url in &self.urls {
            let response = self.client.get(url).send().await?;
            let page = response.error_for_status()?.text().await?;
            all.accepted += counter(&page, ACCEPTED);
            all.delivered += counter(&page, DELIVERED);
        }
        Ok(all)
    }
}

/// A counter of the metrics page; one that is not there has never been counted.
fn counter(page: &str, name: &str) -> u64 {
    let values = page.lines().filter_map(|line| line.strip_prefix(name));
    let mut numbers = values.filter_map(|rest| rest.strip_prefix(' ')?.parse().ok());
    numbers.next().unwrap_or_default()
}

/// The times of all delivered deliveries of `accounts`.
///
/// # Errors
/// [`Failure`]: the API refused or answered what can't be read.
pub(crate) async fn delivered(
    administrator: &Administrator,
    accounts: &[String],
) -> Result<HashMap<DeliveryNumber, Settled>, Failure> {
    let mut found = HashMap::new();
    for account in accounts {
        let mut token = String::new();
        loop {
            let page = administrator.deliveries(account, token).await?;
            found.extend(page.deliveries.iter().filter_map(times));
            if page.next_page_token.is_empty() {
                break;
            }
            token = page.next_page_token;
        }
    }
    Ok(found)
}

fn times(delivery: &v1::Delivery) -> Option<(DeliveryNumber, Settled)> {
    let delivered = delivery.state == i32::from(v1::DeliveryState::Delivered);
    let times = Settled {
        created: wire::timestamp_from_wire(delivery.create_time?),
        settled: wire::timestamp_from_wire(delivery.settle_time?),
    };
    delivered.then_some((delivery_number(&delivery.name)?, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP countersign_attempts Attempts\n\
        countersign_attempts_total{class=\"DELIVERED\"} 12\n\
        countersign_attempts_total{class=\"HTTP_SERVER_ERROR\"} 3\n\
        countersign_deliveries_accepted_total 20\n# EOF\n";

    #[test]
    fn counters_are_read_by_their_whole_name() {
        assert_eq!(counter(PAGE, DELIVERED), 12);
        assert_eq!(counter(PAGE, ACCEPTED), 20);
        assert_eq!(counter(PAGE, "countersign_attempts_total"), 0);
        assert_eq!(counter(PAGE, "countersign_deliveries_accepted"), 0);
    }

    #[test]
    fn only_what_is_delivered_counts() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let mut delivery = v1::Delivery {
            name: "accounts/a/deliveries/01890000-0000-7000-8000-000000000001".to_owned(),
            state: v1::DeliveryState::Delivered.into(),
            create_time: at(5),
            settle_time: at(6),
            ..v1::Delivery::default()
        };
        let (_, found) = times(&delivery).unwrap();
        assert_eq!(found.settled.as_unix_seconds(), 6);
        delivery.state = v1::DeliveryState::DeadLetter.into();
        assert!(times(&delivery).is_none());
        delivery.state = v1::DeliveryState::Leased.into();
        delivery.settle_time = None;
        assert!(times(&delivery).is_none());
    }
}
