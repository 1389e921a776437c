//! Whose a payment is (rule 11): the server's own word first, then the customer's tie, then the buyer's link.

use uuid::Uuid;

use crate::calendar::Time;
use crate::reason::Reason;
use crate::text_enum::text_enum;

text_enum! {
    /// Who says that a customer is a user, weakest first: a buyer writes a client_reference_id into a link; the app's
    /// server writes metadata, calls a function, or an operator attributes by hand.
    Source {
        /// `client_reference_id`.
        ClientReference => "client_reference",
        /// A server's own word.
        Server => "server",
    }
}

/// A Stripe customer known to be a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tie {
    /// The user.
    pub user: Uuid,
    /// Who said so.
    pub source: Source,
    /// As of when it was said: the object's own time, so that order of arrival does not matter.
    pub as_of: Time,
}

impl Tie {
    /// What is known once `said` has been heard too. A server's word beats a buyer's; of two servers' words the later
    /// stands; of two at one time the same one every time.
    #[must_use]
    pub fn join(known: Option<Tie>, said: Tie) -> Tie {
        match known {
            None => said,
            Some(known) if said.source == Source::ClientReference && known.user != said.user => known,
            Some(known) => {
                let rank = |tie: &Tie| (tie.source, tie.as_of, tie.user);
                if rank(&said) > rank(&known) { said } else { known }
            }
        }
    }
}

/// Everything that may say whose a checkout session is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims {
    /// Whose the payment is in the books already: applied before, by whichever door.
    pub paid_for: Option<Uuid>,
    /// What the app's server wrote into the session's metadata.
    pub metadata: Option<Uuid>,
    /// The user to whom an operator attributed the session by hand.
    pub attributed: Option<Uuid>,
    /// The customer's tie.
    pub tie: Option<Uuid>,
    /// What the buyer's link carried.
    pub client_reference: Option<Uuid>,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: Uuid,
    /// Another user whom the customer was tied to: recorded beside the payment.
    pub mismatch: Option<Uuid>,
}

/// Decides whose it is.
///
/// # Errors
/// [`Reason::UnknownUser`] where nothing names anybody; [`Reason::IdentityConflict`] where only a buyer's link does,
/// against a tie; [`Reason::Conflict`] where the server names another user than the payment was applied for.
pub fn identify(claims: Claims) -> Result<Identity, Reason> {
    let mismatch = |user: Uuid| claims.tie.filter(|tied| *tied != user);
    if let Some(user) = claims.paid_for {
        // A tie may have moved on since; what was paid stays where it is, unless the session itself says otherwise.
        return match claims.metadata {
            Some(other) if other != user => Err(Reason::Conflict),
            _ => Ok(Identity { user, mismatch: mismatch(user) }),
        };
    }
    if let Some(user) = claims.metadata.or(claims.attributed) {
        return Ok(Identity { user, mismatch: mismatch(user) });
    }
    match (claims.tie, claims.client_reference) {
        (Some(tied), Some(buyer)) if tied != buyer => Err(Reason::IdentityConflict),
        (Some(user), _) | (None, Some(user)) => Ok(Identity { user, mismatch: None }),
        (None, None) => Err(Reason::UnknownUser),
    }
}

/// What a session says about its customer: the server's metadata, else the buyer's link.
#[must_use]
pub fn tie_said(metadata: Option<Uuid>, client_reference: Option<Uuid>, as_of: Time) -> Option<Tie> {
    let server = metadata.map(|user| Tie { user, source: Source::Server, as_of });
    server.or(client_reference.map(|user| Tie { user, source: Source::ClientReference, as_of }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);

    fn claims() -> impl Strategy<Value = Claims> {
        let user = || prop_oneof![Just(None), Just(Some(A)), Just(Some(B))];
        (user(), user(), user(), user(), user()).prop_map(
            |(paid_for, metadata, attributed, tie, client_reference)| Claims {
                paid_for,
                metadata,
                attributed,
                tie,
                client_reference,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_paid_never_moves_to_another_user(claims in claims()) {
            if let (Some(owner), Ok(identity)) = (claims.paid_for, identify(claims)) {
                prop_assert_eq!(identity.user, owner);
            }
        }

        #[test]
        fn the_servers_own_word_wins_over_tie_and_link(claims in claims()) {
            if let (None, Some(user)) = (claims.paid_for, claims.metadata) {
                prop_assert_eq!(identify(claims).map(|identity| identity.user), Ok(user));
            }
        }

        #[test]
        fn a_buyers_link_never_wins_over_a_tie(claims in claims()) {
            let Claims { paid_for: None, metadata: None, attributed: None, tie: Some(tie), .. } = claims else {
                return Ok(());
            };
            if let Ok(identity) = identify(claims) {
                prop_assert_eq!(identity.user, tie);
            }
        }

        #[test]
        fn servers_words_join_to_one_tie_in_every_order(
            words in proptest::collection::vec((0..3u128, 0..3i64), 1..5),
            seed in any::<prop::sample::Index>(),
        ) {
            let tie = |&(user, second): &(u128, i64)| Tie {
                user: Uuid::from_u128(user),
                source: Source::Server,
                as_of: crate::calendar::from_unix(second).expect("a time"),
            };
            let joined = |words: &[(u128, i64)]| words.iter().map(tie).fold(None, |k, s| Some(Tie::join(k, s)));
            let mut turned = words.clone();
            turned.rotate_left(seed.index(words.len()));
            let mut reversed = words.clone();
            reversed.reverse();
            prop_assert_eq!(joined(&words), joined(&turned));
            prop_assert_eq!(joined(&words), joined(&reversed));
        }
    }
}
