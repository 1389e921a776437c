//! Behind PgBouncer in transaction mode, where each transaction may run in another session: nothing is prepared there, and
//! every delivery is applied.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;

use serde_json::Value;
use stripe_credits_tests::shim::{Setup, Shim, deliver, until};
use stripe_credits_tests::{Connection, Event, paid_pack, user};
use xtask::cluster::Cluster;
use xtask::pooler::Pooler;

use crate::database_away::{DATABASE, books, cluster};

const SENDERS: usize = 12;
const PACKS: usize = 10;
const GAVE_UP: &str = "statements are not prepared";

fn pooler(cluster: &Cluster, settings: &[&str]) -> Pooler {
    let server = SocketAddr::from(([127, 0, 0, 1], cluster.port()));
    Pooler::start(server, "postgres", settings).expect("PgBouncer")
}

fn url(pooler: &Pooler, options: &str) -> String {
    format!("postgres://postgres@{}/{DATABASE}?{options}", pooler.address())
}

fn payment(sender: usize, n: usize) -> Event {
    let name = format!("{sender}_{n}");
    paid_pack(&format!("cs_{name}"), user(10 + sender as u128)).completed(&format!("evt_{name}"))
}

/// Sends from many senders at once, to the shims in turns, while other statements are run too. Returns how often there was
/// which answer.
fn answers(shims: &[Shim]) -> BTreeMap<String, usize> {
    let answers: Vec<String> = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let shim = &shims[sender % shims.len()];
                scope.spawn(move || -> Vec<String> {
                    let address = shim.address();
                    let sent = |n| {
                        assert_eq!(shim.ops("/readyz").status, 200);
                        deliver(address, &payment(sender, n)).expect("an answer").summary()
                    };
                    (0..PACKS).map(sent).collect()
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender")).collect()
    });
    answers.into_iter().fold(BTreeMap::new(), |mut counts, answer| {
        *counts.entry(answer).or_default() += 1;
        counts
    })
}

fn assert_granted_once(books: &mut Connection) {
    for sender in 0..SENDERS {
        let ledger = books.ledger(user(10 + sender as u128));
        assert_eq!(ledger, vec!["purchase 500"; PACKS], "sender {sender}");
    }
}

/// The reason why a shim does not prepare its statements, once it has said it.
fn reason(shim: &Shim) -> Value {
    shim.logged(1, |line| line["message"] == GAVE_UP)[0]["reason"].clone()
}

#[test]
fn two_shims_behind_a_pooler_find_out_that_it_shares_its_sessions() {
    let refused = "a connection pooler takes no options of connections";
    let kept_back = "a connection pooler shares its sessions";
    for (settings, expected) in [(&[][..], refused), (&["ignore_startup_parameters = options"], kept_back)] {
        let cluster = cluster();
        let pooler = pooler(&cluster, settings);
        let shims = [(); 2].map(|()| Setup::serve(&url(&pooler, "")).start());
        assert_eq!(answers(&shims), BTreeMap::from([("200 applied".to_owned(), SENDERS * PACKS)]));
        assert_granted_once(&mut books(&cluster));
        for shim in &shims {
            assert_eq!(reason(shim), expected);
        }
    }
}

#[test]
fn a_shim_that_was_told_wrongly_that_its_pooler_keeps_statements_heals_at_once() {
    let cluster = cluster();
    let pooler = pooler(&cluster, &[]);
    let shims = [Setup::serve(&url(&pooler, "prepared_statements=true")).start()];
    assert_eq!(answers(&shims), BTreeMap::from([("200 applied".to_owned(), SENDERS * PACKS)]));
    assert_granted_once(&mut books(&cluster));
    assert_eq!(reason(&shims[0]), "a connection pooler keeps no prepared statements");
}

#[test]
fn a_shim_that_is_told_of_its_pooler_or_has_none_finds_nothing_out() {
    let cluster = cluster();
    let pooler = pooler(&cluster, &[]);
    let told = Setup::serve(&url(&pooler, "pgbouncer=true")).start();
    let direct = Setup::serve(&cluster.url(DATABASE)).start();
    assert_eq!(told.deliver(&payment(0, 0)).summary(), "200 applied");
    assert_eq!(direct.deliver(&payment(0, 1)).summary(), "200 applied");
    for shim in [&told, &direct] {
        assert!(!shim.text().contains(GAVE_UP), "{}", shim.text());
    }
    // After the extension was made anew, a statement that was prepared before is planned again.
    let mut books = books(&cluster);
    books.run("set stripe_credits.allow_drop = on; drop extension stripe_credits cascade; create extension stripe_credits");
    books.load_catalog(&stripe_credits_tests::catalog());
    until("a delivery is applied", || direct.deliver(&payment(0, 2)).summary() == "200 applied");
    assert_eq!(books.ledger(user(10)), ["purchase 500"]);
}
