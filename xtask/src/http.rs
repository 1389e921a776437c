//! A small blocking HTTP client for 127.0.0.1.

use std::time::Duration;

use crate::Result;

/// How long an answer may take; longer than the shim gives its database.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// An answer, of any status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// One POST of a JSON body.
pub fn post(url: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_LIMIT))
        .http_status_as_error(false)
        // Even if the environment names a proxy: no request leaves the machine.
        .proxy(None)
        .build()
        .into();
    let mut request = agent.post(url).header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send(body)?;
    Ok(Answer { status: response.status().as_u16(), body: response.body_mut().read_to_string()? })
}
