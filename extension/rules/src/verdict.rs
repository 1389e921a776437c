//! What became of a call: the names in `outcome.outcome`, and the reasons that belong to three of them.

use crate::reason::Reason;
use crate::text_enum::text_enum;

text_enum! {
    /// The name of a verdict in `billing.outcome`, the inbox, logs and metrics.
    VerdictName {
        /// Something was posted or recorded.
        Applied => "applied",
        /// The same was applied before.
        AlreadyApplied => "already_applied",
        /// Recorded without effect; judged again if it is delivered again.
        Ignored => "ignored",
        /// Kept until what it lacks is known.
        Parked => "parked",
        /// Refused for good.
        Rejected => "rejected",
        /// The caller has to ask Stripe for the paths in `outcome.to_fetch` and call again.
        NeedsFetch => "needs_fetch",
    }
}

/// A verdict, with its reason if it is one that has a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// [`VerdictName::Applied`]
    Applied,
    /// [`VerdictName::AlreadyApplied`]
    AlreadyApplied,
    /// [`VerdictName::Ignored`]
    Ignored(Reason),
    /// [`VerdictName::Parked`]
    Parked(Reason),
    /// [`VerdictName::Rejected`]
    Rejected(Reason),
    /// [`VerdictName::NeedsFetch`]
    NeedsFetch,
}

impl Verdict {
    /// Its name without the reason.
    #[must_use]
    pub fn name(self) -> VerdictName {
        match self {
            Verdict::Applied => VerdictName::Applied,
            Verdict::AlreadyApplied => VerdictName::AlreadyApplied,
            Verdict::Ignored(_) => VerdictName::Ignored,
            Verdict::Parked(_) => VerdictName::Parked,
            Verdict::Rejected(_) => VerdictName::Rejected,
            Verdict::NeedsFetch => VerdictName::NeedsFetch,
        }
    }

    /// Its name as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.name().as_str()
    }

    /// Its reason.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Verdict::Ignored(reason) | Verdict::Parked(reason) | Verdict::Rejected(reason) => Some(reason),
            Verdict::Applied | Verdict::AlreadyApplied | Verdict::NeedsFetch => None,
        }
    }
}
