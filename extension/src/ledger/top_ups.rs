//! Auto top-up: a draw that leaves too few credits requests a pack, in the same transaction.
//!
//! So does turning it on for a user who has too few already. What lapses, is refunded or corrected also makes a balance fall, but
//! nobody wants to be charged for that.

use serde_json::{Map, Value};
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::payment_intent::TOP_UP_ID;
use stripe_credits_rules::told::Told;
use stripe_credits_rules::top_up::{Switch, id_of};
use uuid::Uuid;

use super::Account;
use crate::pg::convert::uuid_datum;
use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::top_ups::{self, Hindrance, TopUp};

/// A request, as the app is told of it.
pub(crate) fn told_top_up(user: Uuid, top_up: &TopUp, reason: Option<&str>) -> Map<String, Value> {
    let mut data = Map::from_iter([
        (TOP_UP_ID.to_owned(), id_of(user, top_up.id).into()),
        ("pack".to_owned(), top_up.pack.as_str().into()),
        ("stripe_price_id".to_owned(), top_up.price_id.as_str().into()),
        ("credits".to_owned(), top_up.credits.into()),
        ("stripe_payment_intent_id".to_owned(), top_up.payment_intent_id.as_deref().into()),
    ]);
    if let Some(reason) = reason {
        data.insert("reason".to_owned(), reason.into());
    }
    data
}

impl Account {
    /// Turns auto top-up on or off, or pauses it. Returns whether that changes anything.
    pub(crate) fn switch_auto_top_up(&mut self, sql: &mut Sql, switch: Switch) -> bool {
        // A payment that fails does not undo that the user turned it off meanwhile.
        if switch == Switch::Paused && !self.tops_up {
            return false;
        }
        let changed = sql.execute(
            "update billing.accounts set auto_top_up = $2 where user_id = $1 and auto_top_up <> $2",
            &[uuid_datum(self.user).into(), switch.as_str().into()],
        );
        self.tops_up = switch == Switch::On;
        self.dirty |= changed > 0;
        changed > 0
    }

    /// Requests a pack for a user who has too few credits by now, if nothing speaks against it.
    pub(crate) fn top_up_now(&mut self, sql: &mut Sql) {
        let after = self.available();
        self.request_top_up(sql, after, after);
    }

    /// Requests a pack after a draw, if it left too few credits and nothing speaks against it: one that is open makes no other.
    pub(super) fn request_top_up(&mut self, sql: &mut Sql, before: Credits, after: Credits) {
        let Some(top_up) = catalog::auto_top_up(sql).filter(|top_up| top_up.is_wanted(after)) else { return };
        let refused = match top_ups::hindrance(sql, self.user, &top_up) {
            Some(Hindrance::Open) => return,
            // Told once, and not of each further spend.
            Some(Hindrance::Limit) if !top_up.is_crossed(before, after) => return,
            Some(Hindrance::Limit) => true,
            None => false,
        };
        let (told, data) = if refused {
            let data = [
                ("pack".to_owned(), Value::from(top_up.pack.as_str())),
                ("reason".to_owned(), "limit".into()),
                ("at_most".to_owned(), top_up.at_most.to_string().into()),
            ];
            (Told::TopUpRefused, Map::from_iter(data))
        } else {
            let request = top_ups::insert(sql, self.user, self.last_outbox_id + 1, &top_up);
            (Told::TopUpRequested, told_top_up(self.user, &request, None))
        };
        self.tell_row(sql, told, data);
    }
}
