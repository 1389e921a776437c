//! The form encoding of Stripe's API, such as `metadata[user_id]=…`.

use std::fmt;

use form_urlencoded::Serializer;

/// Names and values in order.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Adds a value.
    pub(crate) fn with(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.0.push((name.into(), format!("{value}")));
        self
    }

    /// Adds a value if there is one.
    pub(crate) fn with_some(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The request's body.
    pub(crate) fn encode(&self) -> String {
        Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_escaped() {
        let form = Form::default()
            .with("metadata[user_id]", "a&b=c")
            .with_some("customer", None::<&str>)
            .with("success_url", "https://app.example/?session_id={CHECKOUT_SESSION_ID}")
            .with("quantity", 3);
        assert_eq!(
            form.encode(),
            "metadata%5Buser_id%5D=a%26b%3Dc\
             &success_url=https%3A%2F%2Fapp.example%2F%3Fsession_id%3D%7BCHECKOUT_SESSION_ID%7D&quantity=3"
        );
    }
}
