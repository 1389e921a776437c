//! Refunds, disputes and credit notes.

/// Which of Stripe's objects takes money back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReversalKind {
    /// To the card.
    Refund,
    /// By the card's bank.
    Dispute,
    /// Of an open invoice: less is to be paid.
    CreditNoteBefore,
    /// Of a paid invoice.
    CreditNoteAfter,
}

impl ReversalKind {
    /// Stripe's name of the object.
    #[must_use]
    pub fn object(self) -> &'static str {
        match self {
            ReversalKind::Refund => "refund",
            ReversalKind::Dispute => "dispute",
            ReversalKind::CreditNoteBefore | ReversalKind::CreditNoteAfter => "credit_note",
        }
    }
}

/// A refund, dispute or credit note.
#[derive(Debug, Clone)]
pub struct Reversal {
    /// `re_…`, `dp_…` or `cn_…`.
    pub id: String,
    /// Which of them.
    pub kind: ReversalKind,
    /// The invoice or session whose money it takes back.
    pub payment: String,
    /// In cents.
    pub amount: i64,
    /// When it was made, in Unix seconds.
    pub created: i64,
    /// Stripe's word.
    pub status: &'static str,
    /// Of a dispute: whether the money was taken from the merchant.
    pub is_withdrawn: bool,
    /// Whether the money came again: a failed refund, a dispute that was won.
    pub is_undone: bool,
    /// Of a credit note of a paid invoice: where the money went.
    pub way: Option<NoteWay>,
    /// Of a credit note: the refund that it made.
    pub refund: Option<String>,
}

/// Where the money of a credit note goes if the invoice was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteWay {
    /// To the customer's credit, which pays later invoices.
    Credit,
    /// To the card.
    Card,
    /// Outside of Stripe.
    ByHand,
}
