//! Which user a payment belongs to (rule 11): by the server's metadata first, then by the customer's link to a user,
//! then by the `client_reference_id` that came with the buyer.

use uuid::Uuid;

use crate::calendar::Time;
use crate::reason::Reason;
use crate::text_enum::text_enum;

text_enum! {
    /// What names the user of a customer, weakest first. A buyer can write any `client_reference_id` into a payment
    /// link; only the app's server writes metadata, calls a function of ours, or attributes a payment by hand.
    LinkSource {
        /// `client_reference_id`.
        ClientReference => "client_reference",
        /// The copy of a subscription's metadata on its invoice: it was so when the invoice was made.
        Snapshot => "snapshot",
        /// Metadata, a call, or an attribution.
        Server => "server",
    }
}

/// Which user a Stripe customer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomerLink {
    /// The user.
    pub user: Uuid,
    /// What names the user.
    pub source: LinkSource,
    /// The time of the object that names the user, so that the order of arrival does not matter.
    pub as_of: Time,
}

impl CustomerLink {
    /// The link that is known after `incoming`. A server's link beats a buyer's; of two servers' links the later
    /// stays; of two of the same time the same one every time. A copy of metadata moves no link that a server made, and of two
    /// copies the earlier stays.
    #[must_use]
    pub fn merge(known: Option<CustomerLink>, incoming: CustomerLink) -> CustomerLink {
        match known {
            None => incoming,
            Some(known) if incoming.source == LinkSource::ClientReference && known.user != incoming.user => {
                known
            }
            Some(known)
                if (known.source, incoming.source) == (LinkSource::Snapshot, LinkSource::Snapshot) =>
            {
                if (incoming.as_of, incoming.user) < (known.as_of, known.user) { incoming } else { known }
            }
            Some(known) => {
                let rank = |link: &CustomerLink| (link.source, link.as_of, link.user);
                if rank(&incoming) > rank(&known) { incoming } else { known }
            }
        }
    }
}

/// Everything that may name the user of a payment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims {
    /// The user for whom the payment was applied before, by whichever route.
    pub paid_for: Option<Uuid>,
    /// The user in the object's metadata, which only the app's server writes.
    pub metadata: Option<Uuid>,
    /// The user to whom an operator attributed the payment by hand.
    pub attributed: Option<Uuid>,
    /// The user to whom the customer is linked.
    pub link: Option<Uuid>,
    /// The user in `client_reference_id`.
    pub client_reference: Option<Uuid>,
}

/// The user that a payment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: Uuid,
    /// Another user to whom the customer is linked: recorded with the payment.
    pub mismatch: Option<Uuid>,
}

/// Decides which user a payment belongs to.
///
/// # Errors
/// [`Reason::UnknownUser`] if nothing names a user; [`Reason::IdentityConflict`] if only `client_reference_id` does,
/// and the customer is linked to another; [`Reason::Conflict`] if the server names another user than the payment was
/// applied for.
pub fn identify(claims: Claims) -> Result<Identity, Reason> {
    let mismatch = |user: Uuid| claims.link.filter(|linked| *linked != user);
    if let Some(user) = claims.paid_for {
        // The customer may be linked to another user by now. The payment stays where it was applied, unless its own
        // metadata names another.
        return match claims.metadata {
            Some(other) if other != user => Err(Reason::Conflict),
            _ => Ok(Identity { user, mismatch: mismatch(user) }),
        };
    }
    if let Some(user) = claims.metadata.or(claims.attributed) {
        return Ok(Identity { user, mismatch: mismatch(user) });
    }
    match (claims.link, claims.client_reference) {
        (Some(linked), Some(buyer)) if linked != buyer => Err(Reason::IdentityConflict),
        (Some(user), _) | (None, Some(user)) => Ok(Identity { user, mismatch: None }),
        (None, None) => Err(Reason::UnknownUser),
    }
}

/// The link that an object states of its customer: by the server's metadata, else by `client_reference_id`.
#[must_use]
pub fn stated_link(
    metadata: Option<Uuid>,
    client_reference: Option<Uuid>,
    as_of: Time,
) -> Option<CustomerLink> {
    let server = metadata.map(|user| CustomerLink { user, source: LinkSource::Server, as_of });
    server.or(client_reference.map(|user| CustomerLink { user, source: LinkSource::ClientReference, as_of }))
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
            |(paid_for, metadata, attributed, link, client_reference)| Claims {
                paid_for,
                metadata,
                attributed,
                link,
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
        fn the_servers_metadata_wins_over_link_and_client_reference(claims in claims()) {
            if let (None, Some(user)) = (claims.paid_for, claims.metadata) {
                prop_assert_eq!(identify(claims).map(|identity| identity.user), Ok(user));
            }
        }

        #[test]
        fn a_client_reference_never_wins_over_a_link(claims in claims()) {
            let Claims { paid_for: None, metadata: None, attributed: None, link: Some(link), .. } = claims else {
                return Ok(());
            };
            if let Ok(identity) = identify(claims) {
                prop_assert_eq!(identity.user, link);
            }
        }

        #[test]
        fn servers_links_merge_to_one_in_every_order(
            links in proptest::collection::vec((0..3u128, 0..3i64), 1..5),
            seed in any::<prop::sample::Index>(),
        ) {
            let link = |&(user, second): &(u128, i64)| CustomerLink {
                user: Uuid::from_u128(user),
                source: LinkSource::Server,
                as_of: crate::calendar::from_unix(second).expect("a time"),
            };
            let merged = |links: &[(u128, i64)]| links.iter().map(link).fold(None, |k, s| Some(CustomerLink::merge(k, s)));
            let mut rotated = links.clone();
            rotated.rotate_left(seed.index(links.len()));
            let mut reversed = links.clone();
            reversed.reverse();
            prop_assert_eq!(merged(&links), merged(&rotated));
            prop_assert_eq!(merged(&links), merged(&reversed));
        }
    }
}
