//! Authentication: tokens by a secret and by public keys, the refusal of every wrong one, and what is logged of them.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripe_credits_tests::app::{USER_ROUTES, app, without_stripe};
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Setup, Shim, unix_now, until};
use stripe_credits_tests::tokens::{
    AUDIENCE, JWT_SECRET, KeyServer, Signer, claims, hs256, token, token_of, wrong_tokens,
};
use stripe_credits_tests::wire::{Answer, head};
use stripe_credits_tests::{ANN, BOB, Database, catalog, session};

fn credits(shim: &Shim, token: &str) -> Answer {
    shim.bearing("GET", "/credits", token, b"")
}

fn assert_invalid(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {answer:?}");
    assert_eq!(answer.json(), json!({"code": 401, "message": "Invalid JWT"}), "{what}");
    assert!(answer.headers["www-authenticate"].starts_with("Bearer"), "{what}");
}

/// A shim that verifies tokens by the keys of a JWKS URL only.
fn by_keys(database: &Database, keys: &KeyServer) -> Setup {
    without_stripe(database).without("JWT_SECRET").with("JWKS_URL", &keys.url())
}

#[test]
fn every_wrong_token_is_401_by_its_name_at_every_route_and_nothing_happens() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).start();
    let mut books = database.connect();
    let before = books.everything();
    let wrong = wrong_tokens(ANN);
    assert!(wrong.len() >= 12);
    for (what, token) in &wrong {
        assert_invalid(&credits(&shim, token), what);
    }
    for (method, path) in USER_ROUTES {
        let answer = shim.bearing(
            method,
            path,
            &wrong["expired"],
            br#"{"session_id":"cs_1","price_id":"price_pack"}"#,
        );
        assert_invalid(&answer, path);
    }
    assert_eq!(stripe.asked(), []);
    assert_eq!(books.everything(), before);
    let failures = |kind| shim.metric("stripe_credits_requests_total", &[("reason", kind)]);
    assert_eq!(failures("token_expired"), 10);
    assert_eq!(failures("token_audience"), 2);
    assert_eq!(failures("token_issuer"), 2);
    assert_eq!(failures("token_subject"), 3);
    assert_eq!(failures("token_no_expiry"), 2);
    assert_eq!(failures("token_immature"), 1);
    assert!(failures("token_signature") >= 4);
    assert!(failures("token_algorithm") >= 2);
    assert!(failures("token_malformed") >= 4);
    // Even a wrong token must not be logged: it may be valid elsewhere.
    let log = shim.text();
    for (what, token) in &wrong {
        let tail = &token[token.len().saturating_sub(20)..];
        assert!(tail.len() < 20 || !log.contains(tail), "{what} is in the log");
    }
    assert!(!log.contains(JWT_SECRET));
}

#[test]
fn without_an_authorization_header_every_route_says_that_it_is_missing() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).start();
    for (method, path) in USER_ROUTES {
        let answer = shim.ask(method, path, &[], b"{}");
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.json(), json!({"code": 401, "message": "Missing Authorization header"}), "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer", "{path}");
    }
    for header in ["Basic YW5uOmh1c2g=", "Bearer", &token(ANN), ""] {
        assert_invalid(&shim.ask("GET", "/credits", &[("Authorization", header)], b""), header);
    }
    let both = [
        ("Authorization", &*format!("Bearer {}", token(ANN))),
        ("Authorization", &*format!("Bearer {}", token(BOB))),
    ];
    assert_invalid(&shim.ask("GET", "/credits", &both, b""), "two tokens");
    assert_eq!(shim.metric("stripe_credits_requests_total", &[("reason", "token_missing")]), 9);
}

#[test]
fn a_token_of_another_role_is_403_at_every_route_and_nothing_happens() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).start();
    let mut books = database.connect();
    let before = books.everything();
    for role in
        [json!("anon"), json!("service_role"), json!("Authenticated"), json!(["authenticated"]), Value::Null]
    {
        let mut claims = claims(ANN);
        claims["role"] = role.clone();
        let token = Signer::secret().sign(&claims);
        for (method, path) in USER_ROUTES {
            let answer =
                shim.bearing(method, path, &token, br#"{"session_id":"cs_1","price_id":"price_pack"}"#);
            assert_eq!(answer.status, 403, "{role} {path}: {answer:?}");
            assert_eq!(
                answer.json(),
                json!({"code": 403, "message": "Authorization failed"}),
                "{role} {path}"
            );
        }
    }
    assert_eq!(stripe.asked(), []);
    assert_eq!(books.everything(), before);
    assert!(shim.metric("stripe_credits_requests_total", &[("reason", "token_role")]) >= 5);
}

#[test]
fn our_own_token_of_another_role_is_403_whatever_else_it_lacks() {
    let database = Database::with_catalog();
    let keys_signer = Signer::ec("ec-1");
    let keys = KeyServer::showing(&[&keys_signer]);
    let shims = [
        without_stripe(&database),
        without_stripe(&database).without("JWT_AUDIENCE").without("JWT_ISSUER"),
        without_stripe(&database).with("JWKS_URL", &keys.url()),
    ]
    .map(Setup::start);
    let now = unix_now();
    // Supabase's own keys, as its dashboard shows them: neither a user nor an audience.
    let key =
        |role: &str| json!({"iss": "supabase", "ref": "project", "role": role, "iat": now, "exp": now + 600});
    for (n, shim) in shims.iter().enumerate() {
        for allowed_signature in [Signer::secret()].iter().chain((n == 2).then_some(&keys_signer)) {
            for claims in [key("anon"), key("service_role"), json!({"exp": now + 600, "sub": ANN})] {
                let answer = credits(shim, &allowed_signature.sign(&claims));
                assert_eq!(answer.status, 403, "{n} {claims}: {answer:?}");
                assert_eq!(answer.json(), json!({"code": 403, "message": "Authorization failed"}));
            }
            let expired = json!({"iss": "supabase", "role": "anon", "exp": now - 600});
            assert_invalid(&credits(shim, &allowed_signature.sign(&expired)), "expired");
        }
        assert_invalid(&credits(shim, &Signer::ec("ec-2").sign(&key("anon"))), "not ours");
    }
}

#[test]
fn the_role_is_a_setting() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    for (setting, role, status) in [
        ("member", json!("member"), 200),
        ("member", json!("authenticated"), 403),
        ("member", Value::Null, 403),
        ("*", json!("member"), 200),
        ("*", Value::Null, 200),
    ] {
        let shim = app(&database, &stripe).with("JWT_ROLE", setting).start();
        let mut claims = claims(ANN);
        claims["role"] = role.clone();
        assert_eq!(credits(&shim, &Signer::secret().sign(&claims)).status, status, "{setting} {role}");
    }
}

#[test]
fn supabases_tokens_are_for_users_who_signed_in_though_no_audience_is_set() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).without("JWT_AUDIENCE").without("JWT_ISSUER").start();
    let status = |issuer: &str, audience: Value| {
        let mut claims = claims(ANN);
        (claims["iss"], claims["aud"]) = (json!(issuer), audience);
        credits(&shim, &Signer::secret().sign(&claims)).status
    };
    let supabase = "https://project.supabase.test/auth/v1";
    assert_eq!(status(supabase, json!("authenticated")), 200);
    assert_eq!(status(supabase, json!(["other", "authenticated"])), 200);
    for wrong in [json!("other"), json!(["other"]), json!([]), json!(7), Value::Null] {
        assert_eq!(status(supabase, wrong.clone()), 401, "{wrong}");
        assert_eq!(status("https://project.supabase.test/auth/v1/", wrong.clone()), 401, "{wrong}");
    }
    assert_eq!(status("https://auth.test", json!("other")), 200, "another provider's");
}

#[test]
fn a_good_token_is_its_users_whatever_else_it_says() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).start();
    database.connect().grant(ANN, 30, "gift");
    let with = |field: &str, value: Value| {
        let mut claims = claims(ANN);
        claims[field] = value;
        credits(&shim, &Signer::secret().sign(&claims))
    };
    for answer in [
        credits(&shim, &token(ANN)),
        with("aud", json!(["other", AUDIENCE])),
        with("nbf", json!(unix_now() - 5)),
        with("exp", json!(f64::from(u32::try_from(unix_now()).expect("a time before 2106")) + 100.5)),
        // Clocks differ by some seconds.
        with("exp", json!(unix_now() - 10)),
        with("nbf", json!(unix_now() + 10)),
        with("email", json!("")),
        with("email", json!(7)),
        with("user_id", json!(BOB)),
        with("sub", json!(ANN.to_string().to_uppercase())),
    ] {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["user_id"], json!(ANN));
        assert_eq!(answer.json()["credits_balance"], 30);
    }
    let scheme = [("authorization", &*format!("bearer {}", token(ANN)))];
    assert_eq!(shim.ask("GET", "/credits", &scheme, b"").status, 200);
}

#[test]
fn scenario_70_a_token_of_a_user_who_is_no_uuid_is_of_the_user_that_metadata_names() {
    let database = Database::new();
    let mut books = database.connect();
    let mut document = catalog();
    document["user_namespace"] = json!("6ba7b811-9dad-11d1-80b4-00c04fd430c8");
    books.load_catalog(&document);
    let pack = session("cs_1").metadata("user_id", "user_2abc").metadata("price_id", "price_pack");
    let user = books.apply(&pack.completed("evt_1")).user_id;
    let shim = without_stripe(&database).start();
    let of = |sub: &str| {
        let mut claims = claims(ANN);
        claims["sub"] = json!(sub);
        credits(&shim, &Signer::secret().sign(&claims))
    };
    for sub in ["user_2abc", " user_2abc"] {
        let answer = of(sub);
        assert_eq!((answer.status, &answer.json()["user_id"]), (200, &json!(user)));
        assert_eq!(answer.json()["credits_balance"], 500);
    }
    assert_eq!(of(" ").status, 401, "a blank names nobody");
    assert_eq!(of(&ANN.to_string()).json()["user_id"], json!(ANN), "a UUID is itself");
}

#[test]
fn without_an_audience_and_an_issuer_configured_neither_is_looked_at() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).without("JWT_AUDIENCE").without("JWT_ISSUER").start();
    let mut claims = claims(ANN);
    for (audience, issuer) in
        [(json!("anybody"), json!("anyone")), (Value::Null, Value::Null), (json!(7), json!([7]))]
    {
        claims["aud"] = audience;
        claims["iss"] = issuer;
        let answer = credits(&shim, &Signer::secret().sign(&claims));
        assert_eq!(answer.status, 200, "{claims}");
    }
}

#[test]
fn tokens_of_es256_and_rs256_are_proven_by_the_keys_at_the_url_which_is_asked_once() {
    let database = Database::with_catalog();
    let (ec, rsa) = (Signer::ec("ec-1"), Signer::rsa("rsa-1"));
    let keys = KeyServer::showing(&[&ec, &rsa]);
    let shim = by_keys(&database, &keys).start();
    for _ in 0..5 {
        assert_eq!(credits(&shim, &ec.sign(&claims(ANN))).status, 200);
        assert_eq!(credits(&shim, &rsa.sign(&claims(BOB))).json()["user_id"], json!(BOB));
    }
    // The only key of its kind needs no name.
    assert_eq!(credits(&shim, &ec.sign_as(&json!({"alg": "ES256"}), &claims(ANN))).status, 200);
    assert_eq!(keys.asked(), 1);
}

#[test]
fn a_public_key_is_no_secret_and_a_key_is_good_for_its_own_algorithm_only() {
    let database = Database::with_catalog();
    let (ec, rsa, stranger) = (Signer::ec("ec-1"), Signer::rsa("rsa-1"), Signer::ec("ec-1"));
    let keys = KeyServer::showing(&[&ec, &rsa]);
    let of = claims(ANN);
    let header = |alg: &str, kid: &str| json!({"alg": alg, "typ": "JWT", "kid": kid});
    let with_public = |signer: &Signer, kid| {
        token_of(&header("HS256", kid), &of, |message| hs256(&signer.public_bytes(), message))
    };
    let shown = |signer: &Signer, kid| {
        let jwk = signer.jwk().to_string();
        token_of(&header("HS256", kid), &of, |message| hs256(jwk.as_bytes(), message))
    };
    let wrong = [
        ("HS256 with the RSA key", with_public(&rsa, "rsa-1")),
        ("HS256 with the EC key", with_public(&ec, "ec-1")),
        ("HS256 with the key as it is shown", shown(&rsa, "rsa-1")),
        ("RS256 with the EC key's name", rsa.sign_as(&header("RS256", "ec-1"), &of)),
        ("ES256 with the RSA key's name", ec.sign_as(&header("ES256", "rsa-1"), &of)),
        ("ES256 of another key by the same name", stranger.sign(&of)),
        ("PS256", rsa.sign_as(&header("PS256", "rsa-1"), &of)),
        ("ES384", ec.sign_as(&header("ES384", "ec-1"), &of)),
        ("a key that the token brings along", {
            let mut header = header("ES256", "ec-1");
            header["jwk"] = stranger.jwk();
            stranger.sign_as(&header, &of)
        }),
    ];
    for shim in
        [by_keys(&database, &keys).start(), by_keys(&database, &keys).with("JWT_SECRET", JWT_SECRET).start()]
    {
        for (what, token) in &wrong {
            assert_invalid(&credits(&shim, token), what);
        }
        assert_eq!(credits(&shim, &rsa.sign(&of)).status, 200);
    }
    // Without the variable the secret proves nothing.
    assert_invalid(
        &credits(&by_keys(&database, &keys).start(), &token(ANN)),
        "HS256 where only keys are configured",
    );
    assert_invalid(
        &credits(&without_stripe(&database).start(), &ec.sign(&of)),
        "ES256 where only a secret is configured",
    );
}

#[test]
fn while_an_app_moves_from_a_secret_to_keys_both_are_good() {
    let database = Database::with_catalog();
    let ec = Signer::ec("ec-1");
    let keys = KeyServer::showing(&[&ec]);
    let shim = by_keys(&database, &keys).with("JWT_SECRET", JWT_SECRET).start();
    assert_eq!(credits(&shim, &token(ANN)).status, 200);
    assert_eq!(keys.asked(), 0);
    assert_eq!(credits(&shim, &ec.sign(&claims(ANN))).status, 200);
}

#[test]
fn a_new_key_is_fetched_when_a_token_names_it_and_made_up_ones_are_no_nuisance() {
    let database = Database::with_catalog();
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let keys = KeyServer::showing(&[&old]);
    let shim = by_keys(&database, &keys).start();
    assert_eq!(credits(&shim, &old.sign(&claims(ANN))).status, 200);
    for n in 0..50 {
        let made_up = old.sign_as(&json!({"alg": "ES256", "kid": format!("made-up-{n}")}), &claims(ANN));
        assert_invalid(&credits(&shim, &made_up), "a made-up key");
    }
    assert!(keys.asked() <= 2, "asked {} times", keys.asked());
    keys.show(&[&new, &old]);
    until("the new key is known", || credits(&shim, &new.sign(&claims(ANN))).status == 200);
    assert_eq!(credits(&shim, &old.sign(&claims(ANN))).status, 200);
    let asked = keys.asked();
    assert_eq!(credits(&shim, &new.sign(&claims(ANN))).status, 200);
    assert_eq!(keys.asked(), asked);
}

#[test]
fn while_the_key_server_is_away_known_keys_are_good_and_without_any_it_is_503() {
    let database = Database::with_catalog();
    let (ec, other) = (Signer::ec("ec-1"), Signer::ec("other"));
    let keys = KeyServer::showing(&[&ec]);
    let known = by_keys(&database, &keys).start();
    assert_eq!(credits(&known, &ec.sign(&claims(ANN))).status, 200);
    keys.fail();
    assert_eq!(credits(&known, &ec.sign(&claims(ANN))).status, 200);
    assert_invalid(&credits(&known, &other.sign(&claims(ANN))), "an unknown key");

    let shim = by_keys(&database, &keys).start();
    let answer = credits(&shim, &ec.sign(&claims(ANN)));
    assert_eq!(answer.summary(), "503 token_keys_unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    keys.show(&[&ec]);
    until("the keys are known", || credits(&shim, &ec.sign(&claims(ANN))).status == 200);
}

#[test]
fn a_key_server_that_hangs_keeps_each_request_waiting_for_one_fetch_only() {
    let database = Database::with_catalog();
    let ec = Signer::ec("ec-1");
    let keys = KeyServer::showing(&[&ec]);
    keys.hang();
    let shim = by_keys(&database, &keys).start();
    let since = Instant::now();
    thread::scope(|scope| {
        for n in 0..12 {
            let (shim, ec) = (&shim, &ec);
            scope.spawn(move || {
                let named = ec.sign_as(&json!({"alg": "ES256", "kid": format!("key-{n}")}), &claims(ANN));
                assert_eq!(credits(shim, &named).summary(), "503 token_keys_unavailable");
            });
        }
    });
    // One fetch, not one after the other, takes its five seconds.
    assert!(since.elapsed() < Duration::from_secs(10), "it took {:?}", since.elapsed());
    assert_eq!(keys.asked(), 1);
}

#[test]
fn an_empty_key_set_throws_no_good_keys_away() {
    let database = Database::with_catalog();
    let (ec, other) = (Signer::ec("ec-1"), Signer::ec("other"));
    let keys = KeyServer::showing(&[&ec]);
    let shim = by_keys(&database, &keys).start();
    assert_eq!(credits(&shim, &ec.sign(&claims(ANN))).status, 200);
    keys.show(&[]);
    // An unknown key makes the shim fetch, as soon as it may fetch again.
    let asked = keys.asked();
    until("the empty set was fetched", || {
        assert_invalid(&credits(&shim, &other.sign(&claims(ANN))), "an unknown key");
        keys.asked() > asked
    });
    assert_eq!(credits(&shim, &ec.sign(&claims(ANN))).status, 200);
}

#[test]
fn without_jwt_settings_routes_name_what_is_missing_and_the_catalog_is_still_shown() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database)
        .without("JWT_SECRET")
        .without("CHECKOUT_CANCEL_URL")
        .without("PORTAL_RETURN_URL")
        .start();
    let missing = |method: &str, path: &str| {
        let answer = shim.bearing(method, path, &token(ANN), b"{}");
        assert_eq!(answer.status, 500, "{path}");
        assert_eq!(answer.json()["error"], "Configuration error", "{path}");
        answer.json()["missing"].clone()
    };
    let jwt = "JWT_SECRET or JWKS_URL";
    for (method, path) in USER_ROUTES {
        let expected = match path {
            "/credits" | "/events" => json!([jwt]),
            "/checkout" => json!([jwt, "STRIPE_SECRET_KEY", "CHECKOUT_CANCEL_URL"]),
            "/portal" => json!([jwt, "STRIPE_SECRET_KEY", "PORTAL_RETURN_URL"]),
            _ => json!([jwt, "STRIPE_SECRET_KEY"]),
        };
        assert_eq!(missing(method, path), expected, "{path}");
    }
    assert_eq!(shim.get("/catalog").status, 200);
    assert_eq!(shim.metric("stripe_credits_requests_total", &[("reason", "missing_settings")]), 9);
}

#[test]
fn a_faulty_app_setting_ends_the_start_with_64_and_is_named_without_its_value() {
    let database = Database::with_catalog();
    for (variable, value) in [
        ("JWT_SECRET", "hush-is-too-short"),
        ("JWKS_URL", "http://hush.example/jwks"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://hush.example/"),
        ("CHECKOUT_SUCCESS_URL", "hush"),
        ("CHECKOUT_CANCEL_URL", "ftp://hush.example"),
        ("PORTAL_RETURN_URL", "http://hush.example"),
    ] {
        let ended = without_stripe(&database).with(variable, value).run();
        assert_eq!(ended.code, Some(64), "{variable}: {ended:?}");
        assert!(ended.stderr.contains(&format!("{variable}: ")), "{variable}: {ended:?}");
        assert!(!ended.stderr.contains("hush"), "{variable}: {ended:?}");
    }
}

#[test]
fn the_body_of_an_unauthenticated_request_is_not_waited_for() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).start();
    let mut wire = shim.connect();
    wire.send(&head("POST", "/checkout", &[("Content-Length", "1000")])).expect("the shim reads");
    assert_eq!(wire.answer().expect("an answer").status, 401);
}
