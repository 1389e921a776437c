//! The console as a support person's browser asks it: cookies, forms and redirects, without a browser.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::wire::{Answer, Wire, request};

/// Somebody before the console.
pub struct Support {
    address: SocketAddr,
    cookies: RefCell<BTreeMap<String, String>>,
}

impl Support {
    /// Somebody who is not signed in.
    pub fn at(address: SocketAddr) -> Support {
        Support { address, cookies: RefCell::default() }
    }

    /// Somebody who has signed in with this token as Grace.
    pub fn signed_in(address: SocketAddr, token: &str) -> Support {
        let support = Support::at(address);
        let answer = support.send("/console/sign-in", &[("name", "Grace Support"), ("token", token)]);
        assert_eq!(
            (answer.status, answer.headers["location"].as_str()),
            (303, "/console"),
            "{}",
            answer.body
        );
        support
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    /// The page of what is searched for.
    pub fn page(&self, searched: &str) -> String {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("q", searched).finish();
        let answer = self.get(&format!("/console?{query}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// A form with these fields.
    pub fn send<V: AsRef<str>>(&self, path: &str, fields: &[(&str, V)]) -> Answer {
        let pairs = fields.iter().map(|(name, value)| (name, value.as_ref()));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        self.ask("POST", path, &[("Content-Type", "application/x-www-form-urlencoded")], &body)
    }

    /// The form of a page that posts to this path, filled in with these fields.
    pub fn fill(&self, page: &str, path: &str, fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let form = page.split("<form ").find(|form| form.contains(&format!("action=\"{path}\"")));
        let form = form.unwrap_or_else(|| panic!("no form of {path} in {page}"));
        let hidden = form.split("<input type=\"hidden\" name=\"").skip(1).map(|input| {
            let (name, rest) = input.split_once("\" value=\"").expect("a value");
            (name.to_owned(), unescaped(rest.split('"').next().expect("its end")))
        });
        hidden.chain(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).collect()
    }

    /// Sends a filled-in form, follows its redirect, and returns what the page says of it.
    pub fn press(&self, path: &str, fields: &[(String, String)]) -> String {
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = self.send(path, &fields);
        assert_eq!(answer.status, 303, "{}", answer.body);
        let location = &answer.headers["location"];
        let (path, fragment) = location.split_once('#').expect("a fragment");
        assert_eq!(fragment, "notice");
        said(&self.get(path).body)
    }

    /// A cookie that the browser holds.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.borrow().get(name).cloned()
    }

    /// Any request, with the cookies; keeps those of the answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let cookies =
            self.cookies.borrow().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let cookies = cookies.join("; ");
        let headers = [headers, &[("Cookie", cookies.as_str())]].concat();
        let mut wire = Wire::open(self.address);
        wire.send(&request(method, path, &headers, body.as_bytes())).expect("the shim reads");
        let answer = wire.answer().expect("the shim answers");
        if let Some((pair, attributes)) =
            answer.headers.get("set-cookie").and_then(|set| set.split_once("; "))
        {
            let (name, value) = pair.split_once('=').expect("a name");
            let mut cookies = self.cookies.borrow_mut();
            if attributes.contains("Max-Age=0") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }
}

/// What a page says of the last form.
pub fn said(page: &str) -> String {
    let status = page.split("role=\"status\"").nth(1).expect("a status");
    let text = status.split_once("<p>").map_or("", |(_, rest)| rest.split("</p>").next().unwrap_or_default());
    let is_in_status = status.find("</div>") > status.find("<p>");
    if is_in_status { unescaped(text) } else { String::new() }
}

fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}
