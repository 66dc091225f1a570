//! A year of managed rotation in virtual time, over the real store and the real decisions: agents
//! come and go, receivers are down or refuse what is new, keys do not open, the control plane is
//! killed between any two steps; operators rotate by hand, rotate authorities, give that up, revoke.
//!
//! At every delivery: nothing that is over or revoked is presented, and a receiver that can be reached
//! gets a certificate that it accepts, if there is one. Alerts come when they should, once, and go.

mod dice;
mod fleet;
mod plane;
mod simulation;
mod world;

use proptest::prelude::*;

use self::simulation::live;

/// The whole of it: a thousand destinations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_of_a_thousand_destinations() {
    Box::pin(live(1000, 20_261_124)).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    /// Fewer destinations, and another year each time.
    #[test]
    fn years_of_a_few_destinations(seed: u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(live(40, seed));
    }
}
