//! What a call returns: `billing.outcome`.

use std::cell::OnceCell;

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::{Datum, IntoDatum, JsonB};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use serde_json::{Map, Value};
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::event::Malformed;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::NoGrant;
use uuid::Uuid;

use crate::pg::convert::uuid_datum;
use crate::pg::json::Json;

/// The number of columns of `billing.outcome`, in sql/install.sql.
const COLUMNS: usize = 15;

/// An account's balances, as an outcome shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Balances {
    pub(crate) subscription: Credits,
    pub(crate) purchased: Credits,
    pub(crate) promotional: Credits,
    pub(crate) debt: Credits,
    pub(crate) tier: String,
    pub(crate) subscription_status: String,
}

/// The outcome of a call, column by column.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) user: Option<Uuid>,
    /// The net change of the account's balance.
    pub(crate) credits: Credits,
    /// `None` without a user, or if the user has no account.
    pub(crate) balances: Option<Balances>,
    /// The paths of Stripe's API to read, if the verdict is `needs_fetch`.
    pub(crate) to_fetch: Vec<String>,
    /// Postings, prices, discrepancies.
    pub(crate) details: Details,
}

/// Details of an outcome. An event's are written twice, to the inbox and to the answer, and converted once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    fields: Map<String, Value>,
    /// As Postgres stores them, once that was asked for.
    stored: OnceCell<Vec<u8>>,
}

impl Details {
    fn insert(&mut self, key: &str, value: Value) {
        self.stored.take();
        self.fields.insert(key.to_owned(), value);
    }

    fn extend(&mut self, later: Details) {
        self.stored.take();
        self.fields.extend(later.fields);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    /// `None` if there are none.
    fn json(&self) -> Option<Json> {
        if self.fields.is_empty() {
            return None;
        }
        let stored = self.stored.get_or_init(|| {
            let text = serde_json::to_string(&self.fields).expect("its keys are text");
            Json::from_text(&text).bytes()
        });
        Some(Json::from_bytes(stored))
    }
}

impl Outcome {
    pub(crate) fn of(verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            user: None,
            credits: Credits::ZERO,
            balances: None,
            to_fetch: Vec::new(),
            details: Details::default(),
        }
    }

    pub(crate) fn ignored(reason: Reason) -> Outcome {
        Outcome::of(Verdict::Ignored(reason))
    }

    pub(crate) fn parked(reason: Reason) -> Outcome {
        Outcome::of(Verdict::Parked(reason))
    }

    pub(crate) fn rejected(reason: Reason) -> Outcome {
        Outcome::of(Verdict::Rejected(reason))
    }

    /// A user without an account has no credits, and a rejection does not create an account.
    pub(crate) fn no_account(user: Uuid, reason: Reason) -> Outcome {
        Outcome { user: Some(user), ..Outcome::rejected(reason) }
    }

    /// A text that the rules cannot read as an event.
    pub(crate) fn malformed(malformed: &Malformed) -> Outcome {
        Outcome::rejected(Reason::Malformed).with("fault", malformed.fault.as_str())
    }

    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Outcome {
        self.details.insert(key, value.into());
        self
    }

    /// One outcome of two, with the balances after the later one.
    pub(crate) fn and_then(self, later: Outcome) -> Outcome {
        let verdict = match later.verdict {
            Verdict::AlreadyApplied => self.verdict,
            verdict => verdict,
        };
        let credits = Credits(self.credits.0 + later.credits.0);
        let mut details = self.details;
        details.extend(later.details);
        Outcome { verdict, credits, details, ..later }
    }

    pub(crate) fn details_json(&self) -> Option<Json> {
        self.details.json()
    }

    fn columns(self) -> [Option<pg_sys::Datum>; COLUMNS] {
        let details = self.details_json();
        let total = |b: &Balances| b.subscription.0 + b.purchased.0 + b.promotional.0;
        let balances = self.balances.as_ref();
        let ok = matches!(self.verdict, Verdict::Applied | Verdict::AlreadyApplied);
        [
            ok.into_datum(),
            self.verdict.as_str().into_datum(),
            (self.verdict == Verdict::AlreadyApplied).into_datum(),
            self.verdict.reason().map(Reason::as_str).into_datum(),
            self.user.map(uuid_datum).into_datum(),
            self.credits.0.into_datum(),
            balances.map(|b| b.subscription.0).into_datum(),
            balances.map(|b| b.purchased.0).into_datum(),
            balances.map(|b| b.promotional.0).into_datum(),
            balances.map(total).into_datum(),
            balances.map(|b| b.debt.0).into_datum(),
            balances.map(|b| b.tier.as_str()).into_datum(),
            balances.map(|b| b.subscription_status.as_str()).into_datum(),
            (!self.to_fetch.is_empty()).then(|| JsonB(self.to_fetch.into())).into_datum(),
            details.into_datum(),
        ]
    }
}

/// A request id that was used before: with the same content it was applied already, with other content it contradicts itself.
pub(crate) fn repeated(same: bool) -> Verdict {
    if same { Verdict::AlreadyApplied } else { Verdict::Rejected(Reason::Conflict) }
}

impl From<NoGrant> for Outcome {
    fn from(no_grant: NoGrant) -> Outcome {
        match no_grant {
            NoGrant::Ignored(reason) => Outcome::ignored(reason),
            NoGrant::NeedsFetch(paths) => Outcome { to_fetch: paths, ..Outcome::of(Verdict::NeedsFetch) },
            NoGrant::Parked(reason, unknown) if unknown.is_empty() => Outcome::parked(reason),
            NoGrant::Parked(reason, unknown) => {
                let missing: Vec<Value> = unknown.iter().map(|item| item.name().into()).collect();
                Outcome::parked(reason).with("missing_prices", missing)
            }
            NoGrant::Rejected(reason) => Outcome::rejected(reason),
        }
    }
}

// SAFETY: names the type that sql/install.sql creates before any function.
unsafe impl SqlTranslatable for Outcome {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Outcome);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("billing.outcome"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("billing.outcome")));
}

// SAFETY: forms the tuple by the descriptor of the function's own declared result, so it always fits the catalogs.
unsafe impl BoxRet for Outcome {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
        let mut datums = [pg_sys::Datum::from(0); COLUMNS];
        let mut nulls = [true; COLUMNS];
        for (index, column) in self.columns().into_iter().enumerate() {
            if let Some(datum) = column {
                (datums[index], nulls[index]) = (datum, false);
            }
        }
        // SAFETY: get_call_result_type fills in the descriptor of the call that fcinfo describes, and the assertion
        // proves that both arrays are as long as it before heap_form_tuple reads them.
        unsafe {
            let class =
                pg_sys::get_call_result_type(fcinfo.as_mut_ptr(), std::ptr::null_mut(), &raw mut descriptor);
            assert!(
                class == pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
                    && usize::try_from((*descriptor).natts) == Ok(COLUMNS),
                "billing.outcome has other columns than this library"
            );
            let tuple = pg_sys::heap_form_tuple(descriptor, datums.as_mut_ptr(), nulls.as_mut_ptr());
            let datum = pg_sys::heap_copy_tuple_as_datum(tuple, descriptor);
            fcinfo.return_raw_datum(datum)
        }
    }
}
