//! The phases of an authority's rotation: pure decisions over the states of its generations.
//!
//! STABLE → PREPARED → ISSUING → RETIRING → STABLE. A new generation is published before it signs;
//! it signs for one destination after the other, each on evidence; the older one goes when no
//! certificate of it is presented and every receiver is known to do without it.

use crate::{
    model::{AuthorityState, GenerationUse},
    store::AuthorityChange,
};

/// Where an authority's rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// One generation, nothing under way.
    Stable,
    /// A new generation is published and signs nothing.
    Prepared,
    /// The new generation signs; certificates of the older one are being replaced.
    Issuing,
    /// No certificate of the older generation is presented; receivers take it out of their trust.
    Retiring,
    /// The new generation was given up while it signed; its certificates are being replaced.
    Aborting,
}

/// Why a rotation can't go to its next phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// Nothing is under way.
    #[error("no rotation is under way: begin one with RotateCertificateAuthority")]
    Stable,
    /// One is under way already.
    #[error("generation {0} is on its way already: advance or abort that rotation first")]
    UnderWay(u32),
    /// The older generation's certificates are in use.
    #[error(
        "{used} certificates of generation {generation} are still in use: ListDestinationTrust tells \
         which destinations wait, and why"
    )]
    InUse {
        /// Which generation.
        generation: u32,
        /// How many.
        used: u64,
    },
    /// Receivers may still need the older generation.
    #[error(
        "{waiting} destinations are not known to trust generation {generation} by itself: \
         ListDestinationTrust tells which; have the trust anchor installed there, or say with \
         SetDestinationTrust that it is (ACKNOWLEDGED) or that they are not waited for (EXEMPT)"
    )]
    NotTrusted {
        /// The new generation.
        generation: u32,
        /// How many destinations.
        waiting: u64,
    },
    /// It is too late to abort.
    #[error("the rotation is in phase {0}: only PREPARED and ISSUING can be aborted")]
    TooLate(&'static str),
    /// No generation signs.
    #[error("no generation of this authority signs")]
    NoneActive,
}

impl Phase {
    /// As logs and errors write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "STABLE",
            Self::Prepared => "PREPARED",
            Self::Issuing => "ISSUING",
            Self::Retiring => "RETIRING",
            Self::Aborting => "ABORTING",
        }
    }
}

type Generations = [(u32, AuthorityState)];

/// The newest generation in a state.
pub(super) fn newest(generations: &Generations, wanted: AuthorityState) -> Option<u32> {
    let mut found = generations.iter().rev();
    let found = found.find(|(_, state)| *state == wanted);
    found.map(|(generation, _)| *generation)
}

/// Where the rotation of an authority with these generations is.
pub fn phase(generations: &Generations) -> Phase {
    let active = newest(generations, AuthorityState::Active);
    if newest(generations, AuthorityState::Prepared).is_some() {
        return Phase::Prepared;
    }
    match newest(generations, AuthorityState::Superseded) {
        Some(superseded) if active.is_some_and(|active| active < superseded) => Phase::Aborting,
        Some(_) => Phase::Issuing,
        None if newest(generations, AuthorityState::Retiring).is_some() => Phase::Retiring,
        None => Phase::Stable,
    }
}

/// The states of a new generation and of those before it, when one is wanted. In an emergency it signs
/// at once.
///
/// # Errors
/// [`Blocked::UnderWay`].
pub(super) fn begin(
    generations: &Generations,
    emergency: bool,
) -> Result<(u32, AuthorityState, Vec<AuthorityChange>), Blocked> {
    let highest = generations.last().map_or(0, |(generation, _)| *generation);
    let under_way = [
        AuthorityState::Prepared,
        AuthorityState::Superseded,
        AuthorityState::Retiring,
    ];
    if !emergency {
        let found = under_way
            .iter()
            .find_map(|state| newest(generations, *state));
        if found.is_some() {
            return Err(Blocked::UnderWay(highest));
        }
        return Ok((highest + 1, AuthorityState::Prepared, Vec::new()));
    }
    // What was prepared beside a key that may be in other hands is not used.
    let changes = generations.iter().filter_map(|(generation, from)| {
        let to = match from {
            AuthorityState::Active => AuthorityState::Superseded,
            AuthorityState::Prepared => AuthorityState::Aborted,
            _ => return None,
        };
        Some(change(*generation, *from, to))
    });
    Ok((highest + 1, AuthorityState::Active, changes.collect()))
}

/// What the next phase changes. `used` counts the certificates in use of the generation that goes,
/// `waiting` the destinations that are not known to trust the new one by itself.
///
/// # Errors
/// [`Blocked`].
pub(super) fn advance(
    generations: &Generations,
    used: GenerationUse,
    waiting: u64,
) -> Result<Vec<AuthorityChange>, Blocked> {
    use AuthorityState as State;
    let active = newest(generations, State::Active);
    match phase(generations) {
        Phase::Stable => Err(Blocked::Stable),
        Phase::Prepared => {
            let new = newest(generations, State::Prepared).ok_or(Blocked::Stable)?;
            let mut changes = vec![change(new, State::Prepared, State::Active)];
            changes.extend(active.map(|old| change(old, State::Active, State::Superseded)));
            Ok(changes)
        }
        Phase::Issuing | Phase::Aborting => {
            let gone = all(generations, State::Superseded);
            let used = used.active + used.standby;
            if used > 0 {
                let generation = gone.last().copied().unwrap_or_default();
                return Err(Blocked::InUse { generation, used });
            }
            let changes = gone.into_iter().map(|it| {
                // A newer one than the one that signs was given up.
                let to = match active.is_some_and(|active| active < it) {
                    true => State::Aborted,
                    false => State::Retiring,
                };
                change(it, State::Superseded, to)
            });
            Ok(changes.collect())
        }
        Phase::Retiring => {
            let generation = active.ok_or(Blocked::NoneActive)?;
            if waiting > 0 {
                return Err(Blocked::NotTrusted {
                    generation,
                    waiting,
                });
            }
            let gone = all(generations, State::Retiring).into_iter();
            Ok(gone
                .map(|it| change(it, State::Retiring, State::Retired))
                .collect())
        }
    }
}

/// What giving up changes.
///
/// # Errors
/// [`Blocked`].
pub(super) fn abort(generations: &Generations) -> Result<Vec<AuthorityChange>, Blocked> {
    use AuthorityState as State;
    match phase(generations) {
        Phase::Stable => Err(Blocked::Stable),
        Phase::Prepared => {
            let new = newest(generations, State::Prepared).ok_or(Blocked::Stable)?;
            Ok(vec![change(new, State::Prepared, State::Aborted)])
        }
        Phase::Issuing => {
            let new = newest(generations, State::Active).ok_or(Blocked::NoneActive)?;
            let old = newest(generations, State::Superseded).ok_or(Blocked::Stable)?;
            Ok(vec![
                change(new, State::Active, State::Superseded),
                change(old, State::Superseded, State::Active),
            ])
        }
        late => Err(Blocked::TooLate(late.as_str())),
    }
}

fn all(generations: &Generations, wanted: AuthorityState) -> Vec<u32> {
    let found = generations.iter().filter(|(_, state)| *state == wanted);
    found.map(|(generation, _)| *generation).collect()
}

fn change(generation: u32, from: AuthorityState, to: AuthorityState) -> AuthorityChange {
    AuthorityChange {
        generation,
        from,
        to,
    }
}

#[cfg(test)]
mod tests {
    use AuthorityState as State;

    use super::*;

    const UNUSED: GenerationUse = GenerationUse {
        active: 0,
        standby: 0,
    };

    fn apply(generations: &mut [(u32, State)], changes: &[AuthorityChange]) {
        for change in changes {
            let found = generations.iter_mut().find(|(generation, state)| {
                (*generation, *state) == (change.generation, change.from)
            });
            found.expect("a generation in that state").1 = change.to;
        }
    }

    #[test]
    fn a_rotation_goes_through_its_phases_and_each_waits_for_its_evidence() {
        let mut all = vec![(1, State::Active)];
        assert_eq!(phase(&all), Phase::Stable);
        assert_eq!(advance(&all, UNUSED, 0), Err(Blocked::Stable));
        let (number, state, changes) = begin(&all, false).unwrap();
        assert_eq!((number, state, changes.len()), (2, State::Prepared, 0));
        all.push((2, State::Prepared));
        assert_eq!(phase(&all), Phase::Prepared);
        assert_eq!(begin(&all, false), Err(Blocked::UnderWay(2)));
        let changes = advance(&all, UNUSED, 9).unwrap();
        apply(&mut all, &changes);
        assert_eq!(phase(&all), Phase::Issuing);
        let used = GenerationUse {
            active: 2,
            standby: 1,
        };
        let blocked = advance(&all, used, 0).unwrap_err();
        assert_eq!(
            blocked,
            Blocked::InUse {
                generation: 1,
                used: 3
            }
        );
        let changes = advance(&all, UNUSED, 9).unwrap();
        apply(&mut all, &changes);
        assert_eq!(phase(&all), Phase::Retiring);
        assert!(matches!(
            advance(&all, UNUSED, 1),
            Err(Blocked::NotTrusted {
                generation: 2,
                waiting: 1
            })
        ));
        assert!(matches!(abort(&all), Err(Blocked::TooLate("RETIRING"))));
        let changes = advance(&all, UNUSED, 0).unwrap();
        apply(&mut all, &changes);
        assert_eq!(all, [(1, State::Retired), (2, State::Active)]);
        assert_eq!(phase(&all), Phase::Stable);
        assert_eq!(begin(&all, false).unwrap().0, 3);
    }

    #[test]
    fn a_rotation_can_be_given_up_before_the_older_generation_goes() {
        let mut prepared = vec![(1, State::Active), (2, State::Prepared)];
        let changes = abort(&prepared).unwrap();
        apply(&mut prepared, &changes);
        assert_eq!(prepared, [(1, State::Active), (2, State::Aborted)]);
        assert_eq!(begin(&prepared, false).unwrap().0, 3);

        let mut issuing = vec![(1, State::Superseded), (2, State::Active)];
        let changes = abort(&issuing).unwrap();
        apply(&mut issuing, &changes);
        assert_eq!(phase(&issuing), Phase::Aborting);
        let changes = advance(&issuing, UNUSED, 5).unwrap();
        apply(&mut issuing, &changes);
        assert_eq!(issuing, [(1, State::Active), (2, State::Aborted)]);
    }

    #[test]
    fn giving_up_an_emergency_gives_up_no_older_generation() {
        let mut all = vec![(1, State::Superseded), (2, State::Active)];
        let (number, state, changes) = begin(&all, true).unwrap();
        apply(&mut all, &changes);
        all.push((number, state));
        let changes = abort(&all).unwrap();
        apply(&mut all, &changes);
        assert_eq!(phase(&all), Phase::Aborting);
        let changes = advance(&all, UNUSED, 0).unwrap();
        apply(&mut all, &changes);
        let expected = [
            (1, State::Retiring),
            (2, State::Active),
            (3, State::Aborted),
        ];
        assert_eq!(all, expected, "receivers may still trust only the first");
    }

    #[test]
    fn in_an_emergency_the_new_generation_signs_at_once() {
        let mut all = vec![(1, State::Active), (2, State::Prepared)];
        let (number, state, changes) = begin(&all, true).unwrap();
        assert_eq!((number, state), (3, State::Active));
        apply(&mut all, &changes);
        all.push((3, state));
        assert_eq!(phase(&all), Phase::Issuing);
        assert_eq!(all[1].1, State::Aborted);
    }
}
