//! What follows in which situation.

use FailureClass as Class;

use super::{
    super::testing::{DAY, HOUR, LIFE, MINUTE, START, certificate, probed, refusal, request, view},
    *,
};
use crate::model::KeyAlgorithm;

const CHAIN: ProbePresentation = ProbePresentation::Chain;
const ALONE: ProbePresentation = ProbePresentation::LeafOnly;

fn policy() -> Policy {
    Policy::new(LIFE, DAY)
}

fn day(day: u32) -> Timestamp {
    START.plus(day * DAY)
}

/// With all agents having everything on disk.
fn decide(view: &RotationView, now: Timestamp) -> Next {
    next(view, Holding::Durable, &policy(), now)
}

fn waits(until: Timestamp, held_up: HeldUp) -> Next {
    Next::Wait {
        until,
        held_up: Some(held_up),
    }
}

fn rests(until: Timestamp) -> Next {
    Next::Wait {
        until,
        held_up: None,
    }
}

fn active(version: u32) -> ClientCertificate {
    let mut active = certificate(version, State::Active);
    active.activated_at = Some(START);
    active
}

/// Renewed on day 55: `state` is the second one's.
fn renewed(state: State) -> RotationView {
    let mut second = certificate(2, state);
    (second.not_before, second.not_after) = (day(55), day(55).plus(LIFE));
    view(vec![second, active(1)])
}

/// The second one was activated on day 55; the first is kept.
fn replaced() -> RotationView {
    let mut all = renewed(State::Active);
    all.certificates[0].activated_at = Some(day(55));
    all.certificates[1].state = State::Retiring;
    all.certificates[1].replaced_at = Some(day(55));
    all
}

/// The second generation signs, and the first certificate is of the first one.
fn superseded() -> RotationView {
    let mut all = view(vec![active(1)]);
    all.generations = vec![(1, AuthorityState::Superseded), (2, AuthorityState::Active)];
    all
}

fn customer(certificates: Vec<ClientCertificate>) -> RotationView {
    let mut all = view(certificates);
    all.destination.config.trust_model = TrustModel::Customer;
    for certificate in &mut all.certificates {
        certificate.trust_model = TrustModel::Customer;
        certificate.issuer_generation = None;
    }
    all.generations.clear();
    all
}

#[test]
fn the_first_certificate_goes_in_untried() {
    assert_eq!(decide(&view(vec![]), START), Next::Issue);
    let issued = view(vec![certificate(1, State::Pending)]);
    assert_eq!(
        next(&issued, Holding::NoAgent, &policy(), START),
        Next::Activate(1),
        "nothing is presented, so there is nothing to lose"
    );
}

#[test]
fn renewal_is_due_at_sixty_to_sixty_five_percent_of_the_life() {
    let mut all = view(vec![active(1)]);
    assert_eq!(decide(&all, START), rests(day(1)), "a look a day");
    let second = Duration::from_secs(1);
    assert_eq!(decide(&all, day(54).minus(second)), rests(day(54)));
    assert_eq!(decide(&all, day(54)), Next::Issue);
    all.certificates[0].serial = "4000ffff".to_owned();
    assert_eq!(
        decide(&all, day(58)),
        rests(policy().renew_at(&all.certificates[0]))
    );
    assert_eq!(decide(&all, day(58).plus(12 * HOUR)), Next::Issue);
}

#[test]
fn a_candidate_waits_until_every_connected_agent_has_it_on_disk() {
    let mut all = renewed(State::Pending);
    let cases = [
        (Holding::NoAgent, HeldUp::NoAgent),
        (Holding::Waiting, HeldUp::NotDurable),
    ];
    for (holding, held_up) in cases {
        all.rotation.held_up = None;
        let decided = next(&all, holding, &policy(), day(55));
        assert_eq!(decided, waits(day(55).plus(SOON), held_up));
        all.rotation.held_up = Some((held_up, day(54)));
        let decided = next(&all, holding, &policy(), day(55));
        assert_eq!(
            decided,
            waits(day(55).plus(MINUTE), held_up),
            "less often later"
        );
    }
    assert_eq!(decide(&all, day(55)), Next::Distributed(2));
}

#[test]
fn a_candidate_is_presented_when_the_receiver_has_accepted_it() {
    let mut all = renewed(State::Distributed);
    assert_eq!(decide(&all, day(55)), Next::Probe(2, CHAIN));
    // A server error is an answer: the certificate was taken.
    for class in [Class::Delivered, Class::HttpServerError] {
        all.rotation.probes = vec![probed(2, class, day(55), 0)];
        assert_eq!(decide(&all, day(55)), Next::Activate(2), "{class}");
    }
}

#[test]
fn a_candidate_that_is_not_accepted_is_tried_again_ever_later() {
    let cases = [
        (
            Class::ClientCaNotTrusted,
            HeldUp::Refused(Class::ClientCaNotTrusted),
        ),
        (
            Class::ConnectionTimeout,
            HeldUp::Unreachable(Class::ConnectionTimeout),
        ),
        (
            Class::ServerCaNotTrusted,
            HeldUp::Unreachable(Class::ServerCaNotTrusted),
        ),
        (Class::NotAttempted, HeldUp::NoAgent),
    ];
    for (class, held_up) in cases {
        let after = [
            (1, MINUTE),
            (2, 2 * MINUTE),
            (4, 8 * MINUTE),
            (7, HOUR),
            (99, HOUR),
        ];
        for (failures, wait) in after {
            let mut all = renewed(State::Distributed);
            all.rotation.probes = vec![probed(2, class, day(55), failures)];
            let due = day(55).plus(wait);
            assert_eq!(
                decide(&all, day(55)),
                waits(due, held_up),
                "{class} {failures}"
            );
            assert_eq!(decide(&all, due), Next::Probe(2, CHAIN));
        }
    }
}

#[test]
fn who_asks_for_a_rotation_has_a_candidate_that_waits_tried_at_once() {
    let mut all = renewed(State::Distributed);
    all.rotation.probes = vec![probed(2, Class::ClientCaNotTrusted, day(55), 9)];
    all.rotation.asked = true;
    assert_eq!(decide(&all, day(55)), Next::Probe(2, CHAIN));
    let mut all = view(vec![active(1)]);
    all.rotation.asked = true;
    assert_eq!(
        decide(&all, START),
        Next::Issue,
        "and without one there is a new one"
    );
}

#[test]
fn a_403_counts_only_if_the_active_certificate_gets_none() {
    let forbidden = Class::ClientIdentityForbidden;
    let mut all = renewed(State::Distributed);
    all.rotation.probes = vec![probed(2, forbidden, day(55), 1)];
    assert_eq!(decide(&all, day(55)), Next::Probe(1, CHAIN));
    let stale = probed(1, forbidden, day(54), 1);
    all.rotation.probes.push(stale);
    assert_eq!(
        decide(&all, day(55)),
        Next::Probe(1, CHAIN),
        "an old answer does not count"
    );
    all.rotation.probes[1] = probed(1, forbidden, day(55), 1);
    assert_eq!(
        decide(&all, day(55)),
        Next::Activate(2),
        "it forbids everybody"
    );
    all.rotation.probes[1] = probed(1, Class::Delivered, day(55), 0);
    let due = day(55).plus(MINUTE);
    assert_eq!(
        decide(&all, day(55)),
        waits(due, HeldUp::Refused(forbidden))
    );
    assert_eq!(decide(&all, due), Next::Probe(2, CHAIN));
}

#[test]
fn what_deliveries_refuse_is_put_back_and_tried_again_ever_later() {
    let mut all = replaced();
    all.rotation.refused = refusal(2, day(56));
    assert_eq!(decide(&all, day(56)), Next::PutBack { from: 2, to: 1 });
    // As it is after that.
    all.certificates[0].state = State::Distributed;
    all.certificates[1].state = State::Active;
    all.rotation.probes = vec![probed(2, Class::Delivered, day(55), 0)];
    let held_up = HeldUp::Refused(Class::ClientCaNotTrusted);
    for (refusals, wait) in [(1, MINUTE), (3, 4 * MINUTE), (9, HOUR)] {
        all.rotation.refusals = refusals;
        let due = day(56).plus(wait);
        assert_eq!(
            decide(&all, day(56)),
            waits(due, held_up),
            "the probe before does not count"
        );
        assert_eq!(decide(&all, due), Next::Probe(2, CHAIN));
    }
    all.rotation.probes = vec![probed(2, Class::Delivered, day(57), 0)];
    assert_eq!(decide(&all, day(57)), Next::Activate(2));
}

#[test]
fn a_refusal_without_another_certificate_changes_nothing() {
    let mut all = view(vec![active(1)]);
    all.rotation.refused = refusal(1, START);
    assert_eq!(decide(&all, START), rests(day(1)));
}

#[test]
fn a_refusal_of_another_version_keeps_no_candidate_waiting() {
    let mut all = renewed(State::Distributed);
    all.rotation.refused = refusal(7, day(55));
    all.rotation.refusals = 9;
    assert_eq!(decide(&all, day(55)), Next::Probe(2, CHAIN));
}

#[test]
fn the_one_before_goes_after_its_time_once_the_new_one_is_known_to_work() {
    let mut all = replaced();
    assert_eq!(
        decide(&all, day(55)),
        rests(day(56)),
        "its time is not over"
    );
    assert_eq!(decide(&all, day(56)), Next::Probe(2, CHAIN));
    all.rotation.probes = vec![probed(2, Class::Delivered, day(55), 0)];
    assert_eq!(
        decide(&all, day(56)),
        Next::Probe(2, CHAIN),
        "that was before it was presented"
    );
    all.rotation.probes = vec![probed(2, Class::ConnectionRefused, day(56), 1)];
    let due = day(56).plus(MINUTE);
    assert_eq!(decide(&all, day(56)), waits(due, HeldUp::NotConfirmed));
    assert_eq!(decide(&all, due), Next::Probe(2, CHAIN));
    all.certificates[0].confirmed_at = Some(day(56));
    assert_eq!(decide(&all, day(56)), Next::Retire(1));
    // Not even a newer one that is held up keeps it.
    all.certificates.insert(0, certificate(3, State::Pending));
    assert_eq!(
        next(&all, Holding::NoAgent, &policy(), day(56)),
        Next::Retire(1)
    );
}

#[test]
fn a_403_confirms_only_what_the_one_before_gets_too() {
    let forbidden = Class::ClientIdentityForbidden;
    let mut all = replaced();
    all.rotation.probes = vec![probed(2, forbidden, day(56), 1)];
    assert_eq!(decide(&all, day(56)), Next::Probe(1, CHAIN));
    all.rotation.probes.push(probed(1, forbidden, day(56), 1));
    assert_eq!(decide(&all, day(56)), Next::Retire(1));
    all.rotation.probes[1] = probed(1, Class::Delivered, day(56), 0);
    let due = day(56).plus(MINUTE);
    assert_eq!(decide(&all, day(56)), waits(due, HeldUp::NotConfirmed));
}

#[test]
fn whatever_has_ended_expires() {
    for state in [
        State::Active,
        State::Distributed,
        State::Pending,
        State::Retiring,
    ] {
        let mut all = renewed(State::Active);
        all.certificates[1].state = state;
        assert_eq!(decide(&all, day(90)), Next::Expire(1), "{state:?}");
    }
    // What was held up until then goes in.
    let all = view(vec![certificate(2, State::Distributed)]);
    assert_eq!(decide(&all, day(1)), Next::Activate(2));
}

#[test]
fn nothing_that_is_held_up_makes_it_miss_an_end() {
    let mut all = renewed(State::Distributed);
    let now = day(90).minus(Duration::from_secs(5));
    all.rotation.probes = vec![probed(2, Class::ConnectionTimeout, now, 20)];
    let held_up = HeldUp::Unreachable(Class::ConnectionTimeout);
    assert_eq!(decide(&all, now), waits(day(90), held_up));
}

#[test]
fn when_the_active_one_was_revoked_the_one_before_is_better_than_an_untried_one() {
    assert_eq!(decide(&view(vec![]), START), Next::Issue);
    let untried = view(vec![certificate(3, State::Pending)]);
    assert_eq!(decide(&untried, START), Next::Activate(3));
    let both = view(vec![
        certificate(3, State::Pending),
        certificate(1, State::Retiring),
    ]);
    assert_eq!(decide(&both, START), Next::Activate(1));
}

#[test]
fn another_key_algorithm_or_trust_model_begins_a_rotation() {
    let mut all = view(vec![active(1)]);
    all.destination.config.key_algorithm = KeyAlgorithm::Rsa2048;
    assert_eq!(decide(&all, START), Next::Issue);
    let mut all = renewed(State::Distributed);
    all.destination.config.trust_model = TrustModel::Shared;
    assert_eq!(
        decide(&all, day(55)),
        Next::Retire(2),
        "that is not wanted any more"
    );
    all.certificates.remove(0);
    assert_eq!(decide(&all, day(55)), Next::Issue);
    all.destination.config.trust_model = TrustModel::Customer;
    assert_eq!(decide(&all, day(55)), Next::Request);
}

#[test]
fn of_two_candidates_only_one_is_carried_on() {
    let mut all = view(vec![
        certificate(3, State::Pending),
        certificate(2, State::Distributed),
        active(1),
    ]);
    assert_eq!(
        decide(&all, START),
        Next::Retire(2),
        "a newer one is under way"
    );
    all.certificates[0].trust_model = TrustModel::Shared;
    assert_eq!(
        decide(&all, START),
        Next::Retire(3),
        "the newer one is not wanted"
    );
}

#[test]
fn a_receivers_ca_is_asked_and_waited_for() {
    let mut all = customer(vec![]);
    assert_eq!(decide(&all, START), Next::Request);
    all.request = request(1, KeyAlgorithm::EcdsaP256);
    let asks = waits(START.plus(HOUR), HeldUp::UploadNeeded);
    assert_eq!(decide(&all, START), asks, "and reminded of");
    all.destination.config.key_algorithm = KeyAlgorithm::Rsa2048;
    assert_eq!(
        decide(&all, START),
        Next::Request,
        "nobody wants this key any more"
    );

    let mut all = customer(vec![active(1)]);
    assert_eq!(decide(&all, day(53)), rests(day(54)));
    assert_eq!(decide(&all, day(54)), Next::Request, "in good time");
    all.request = request(2, KeyAlgorithm::EcdsaP256);
    assert_eq!(
        decide(&all, day(53)),
        rests(day(54)),
        "somebody renews ahead of time"
    );
    let asks = waits(day(54).plus(HOUR), HeldUp::UploadNeeded);
    assert_eq!(decide(&all, day(54)), asks);
}

#[test]
fn an_upload_that_the_receiver_refuses_can_be_replaced() {
    let mut all = customer(vec![certificate(2, State::Distributed), active(1)]);
    all.rotation.probes = vec![probed(2, Class::ClientCaNotTrusted, day(55), 3)];
    let held_up = HeldUp::Refused(Class::ClientCaNotTrusted);
    assert_eq!(
        decide(&all, day(55)),
        waits(day(55).plus(4 * MINUTE), held_up)
    );
    all.rotation.asked = true;
    assert_eq!(decide(&all, day(55)), Next::Request);
    all.rotation.asked = false;
    all.request = request(3, KeyAlgorithm::EcdsaP256);
    assert_eq!(
        decide(&all, day(55)),
        waits(day(55).plus(4 * MINUTE), held_up)
    );
}

#[test]
fn what_a_superseded_generation_signed_is_replaced() {
    let mut all = superseded();
    assert_eq!(decide(&all, START), Next::Issue);
    all.certificates.insert(0, certificate(2, State::Pending));
    assert_eq!(decide(&all, START), Next::Retire(2), "signed just before");
    all.certificates[0].issuer_generation = Some(2);
    assert_eq!(decide(&all, START), Next::Distributed(2));
    // Given up: back to the first generation.
    all.certificates[0].state = State::Active;
    all.certificates[1].state = State::Retiring;
    all.certificates[1].replaced_at = Some(START);
    all.generations = vec![(1, AuthorityState::Active), (2, AuthorityState::Superseded)];
    assert_eq!(decide(&all, START), Next::Issue);
}

#[test]
fn whether_a_receiver_trusts_the_new_generation_is_asked_with_the_certificate_alone() {
    let mut all = superseded();
    all.certificates[0].issuer_generation = Some(2);
    assert_eq!(decide(&all, START), Next::Probe(1, ALONE));
    let mut note = probed(1, Class::ClientCaNotTrusted, START, 1);
    note.presentation = ALONE;
    all.rotation.probes = vec![note];
    assert_eq!(
        decide(&all, START),
        Next::Trust(2, TrustState::ProbedRefused)
    );
    all.rotation.trust = Some((2, TrustState::ProbedRefused, START));
    assert_eq!(decide(&all, START), rests(START.plus(MINUTE)));
    assert_eq!(decide(&all, START.plus(MINUTE)), Next::Probe(1, ALONE));
    // A receiver that is down says nothing.
    all.rotation.probes[0].class = Class::ConnectionRefused;
    assert_eq!(decide(&all, START), rests(START.plus(MINUTE)));
    (
        all.rotation.probes[0].class,
        all.rotation.probes[0].accepted,
    ) = (Class::Delivered, true);
    assert_eq!(decide(&all, START), Next::Trust(2, TrustState::ProbedOk));
    for settled in [
        TrustState::ProbedOk,
        TrustState::Acknowledged,
        TrustState::Exempt,
    ] {
        all.rotation.trust = Some((2, settled, START));
        assert_eq!(
            decide(&all, START.plus(2 * MINUTE)),
            rests(START.plus(DAY + 2 * MINUTE))
        );
    }
    // What is known of another generation does not count.
    all.rotation.trust = Some((1, TrustState::ProbedOk, START));
    all.rotation.probes.clear();
    assert_eq!(decide(&all, START), Next::Probe(1, ALONE));
    all.generations.remove(0);
    assert_eq!(
        decide(&all, START),
        rests(day(1)),
        "nothing is being rotated"
    );
}
