//! PostgREST's part of Supabase, as thin as it can be: `/rest/v1/rpc/NAME` calls a function of schema `billing` with
//! named arguments, as the role of the token and with its claims.

use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response};
use serde_json::{Map, Value, json};

use crate::connection::{Connection, Fault};
use crate::database::Database;
use crate::http_server::HttpServer;
use crate::tokens::{JWT_SECRET, hs256};

/// What a path of a call begins with.
const RPC: &str = "/rest/v1/rpc/";
/// The role of who has no token.
const ANONYMOUS: &str = "anon";

/// A running server. Dropped, it is gone.
pub struct Postgrest(HttpServer);

/// A status and its body.
type Answer = (u16, Value);

impl Postgrest {
    /// Serves a database.
    pub fn start(database: &Database) -> Postgrest {
        let url = database.url();
        Postgrest(HttpServer::start(move |request| respond(url.clone(), request)))
    }

    /// Supabase's URL for its client.
    pub fn url(&self) -> String {
        self.0.origin()
    }
}

/// The HTTP status that PostgREST answers a SQLSTATE with, for a signed-in role: its `pgErrorStatus`, as far as it matters.
pub fn http_status(sqlstate: &str) -> u16 {
    match sqlstate {
        "23503" | "23505" => 409,
        "25006" => 405,
        "42883" | "42P01" => 404,
        "42501" => 403,
        "P0001" => 400,
        "21000" | "42P17" => 500,
        _ => match &sqlstate[..2] {
            "08" | "53" => 503,
            "0L" | "0P" | "28" => 403,
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0" | "HV"
            | "P0" | "XX" => 500,
            _ => 400,
        },
    }
}

async fn respond(
    database_url: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, incoming) = request.into_parts();
    let body = incoming.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let name = head.uri.path().strip_prefix(RPC).map(str::to_owned);
    let (status, json) = match name.filter(|_| head.method == Method::POST) {
        None => (404, fault("PGRST125", "Invalid path specified in request URL")),
        // The client of Postgres blocks.
        Some(name) => tokio::task::spawn_blocking(move || answer(&database_url, &name, &head.headers, &body))
            .await
            .unwrap_or_else(|panic| (500, fault("XX000", &panic.to_string()))),
    };
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    Ok(response.body(Full::from(json.to_string())).expect("a status and a type"))
}

fn fault(code: &str, message: &str) -> Value {
    json!({"code": code, "message": message, "details": null, "hint": null})
}

fn answer(database_url: &str, name: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header("content-profile") != "billing" {
        return (406, fault("PGRST106", "The schema must be one of the following: billing"));
    }
    let claims = match header(AUTHORIZATION.as_str()).strip_prefix("Bearer ").map(claims) {
        None => json!({"role": ANONYMOUS}),
        Some(Some(claims)) => claims,
        Some(None) => return (401, fault("PGRST301", "JWSInvalidSignature")),
    };
    let body = if body.is_empty() { b"{}" } else { body };
    let Ok(arguments) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return (400, fault("PGRST102", "Empty or invalid json"));
    };
    let client = postgres::Client::connect(database_url, postgres::NoTls).expect("the tests' database");
    let mut connection = Connection::new(client);
    let Some((call, is_set)) = call(&mut connection, name, &arguments) else {
        return (404, fault("PGRST202", "Could not find the function in the schema cache"));
    };
    match run(&mut connection, &call, &claims, &Value::Object(arguments)) {
        Err(Fault { code, message, detail }) => {
            (http_status(&code), json!({"code": code, "message": message, "details": detail, "hint": null}))
        }
        Ok(Value::Array(mut rows)) if is_set && header(ACCEPT.as_str()).contains("vnd.pgrst.object") => {
            match rows.len() {
                1 => (200, rows.remove(0)),
                _ => (406, fault("PGRST116", "Cannot coerce the result to a single JSON object")),
            }
        }
        Ok(value) => (200, value),
    }
}

/// The claims of a token, if it is signed with the secret.
fn claims(token: &str) -> Option<Value> {
    let (message, signature) = token.rsplit_once('.')?;
    let is_signed = URL_SAFE_NO_PAD.encode(hs256(JWT_SECRET.as_bytes(), message.as_bytes())) == signature;
    let payload = URL_SAFE_NO_PAD.decode(message.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok().filter(|_| is_signed)
}

/// The statement that calls a function with the arguments of `$1`, and whether it returns a set; none if there is no
/// function with arguments of these names.
fn call(connection: &mut Connection, name: &str, arguments: &Map<String, Value>) -> Option<(String, bool)> {
    let known = connection
        .query_opt(
            "select p.proretset, coalesce(jsonb_object_agg(a.name, format_type(a.type, null))
                 filter (where a.name is not null), '{}')
             from pg_proc p
             left join lateral unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) a (name, type) on true
             where p.pronamespace = 'billing'::regnamespace and p.proname = $1 group by p.oid",
            &[&name],
        )
        .expect("the system's catalog")?;
    let (is_set, types): (bool, Value) = (known.get(0), known.get(1));
    let argument = |argument: &String| {
        let arrow = if types[argument] == "jsonb" { "->" } else { "->>" };
        Some(format!("{argument} => ($1::jsonb {arrow} '{argument}')::{}", types[argument].as_str()?))
    };
    let arguments = arguments.keys().map(argument).collect::<Option<Vec<String>>>()?.join(", ");
    let result = if is_set { "coalesce(jsonb_agg(to_jsonb(r)), '[]')" } else { "to_jsonb(r)" };
    Some((format!("select {result} from billing.{name}({arguments}) r where $1::jsonb is not null"), is_set))
}

/// Runs a call in one transaction, as the claims' role.
fn run(connection: &mut Connection, call: &str, claims: &Value, arguments: &Value) -> Result<Value, Fault> {
    let mut transaction = connection.transaction()?;
    let role = claims["role"].as_str().unwrap_or(ANONYMOUS);
    let set = "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)";
    transaction.execute(set, &[&role, &claims.to_string()])?;
    let row = transaction.query_one(call, &[arguments])?;
    let value: Option<Value> = row.get(0);
    transaction.commit()?;
    Ok(value.unwrap_or(Value::Null))
}
