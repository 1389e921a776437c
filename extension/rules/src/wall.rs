//! Whether an event is ours at all: a test event has no effect in a live install, nor a foreign account's in ours.

use crate::event::Event;
use crate::reason::Reason;

/// The part of the settings that decides whose events are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wall {
    /// Whether this install keeps real money's books.
    pub livemode: bool,
    /// The one connected account whose events count; `None`: only events without an account.
    pub stripe_account: Option<String>,
}

impl Wall {
    /// Why the event stays outside, or `None` where it may come in. Never final: changed settings judge again.
    #[must_use]
    pub fn refuses(&self, event: &Event) -> Option<Reason> {
        if event.livemode != self.livemode {
            Some(Reason::Livemode)
        } else if event.account != self.stripe_account {
            Some(Reason::Account)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event;

    fn refusal(wall: &Wall, livemode: bool, account: Option<&str>) -> Option<Reason> {
        let text = serde_json::json!({
            "id": "evt_1", "type": "customer.created", "created": 1, "livemode": livemode, "account": account,
            "data": { "object": {} },
        });
        wall.refuses(&event::read(&text.to_string()).expect("an event"))
    }

    #[test]
    fn only_events_of_our_mode_and_account_come_in() {
        let ours = Wall { livemode: true, stripe_account: None };
        assert_eq!(refusal(&ours, true, None), None);
        assert_eq!(refusal(&ours, false, None), Some(Reason::Livemode));
        assert_eq!(refusal(&ours, true, Some("acct_1")), Some(Reason::Account));
        let connected = Wall { livemode: true, stripe_account: Some("acct_1".into()) };
        assert_eq!(refusal(&connected, true, Some("acct_1")), None);
        assert_eq!(refusal(&connected, true, Some("acct_2")), Some(Reason::Account));
        assert_eq!(refusal(&connected, true, None), Some(Reason::Account));
    }
}
