//! What a call takes of the server's process: its processor time, which what else the machine does changes less than a rate. The
//! baseline and the extension take turns.

use comfy_table::Table;
use postgres::{Client, Statement};
use uuid::Uuid;
use xtask::cluster::Cluster;
use xtask::figures::{median, table};
use xtask::stripe_event::Event;
use xtask::{Result, signals};

use super::{ACCOUNTS, DATABASE, ROUNDS};

/// Calls that are timed together.
const CALLS: u32 = 200;
/// Samples of each: more than of the rates, since they are short.
const SAMPLES: usize = 5 * ROUNDS;

/// Processor time of a call of the baseline and of the extension, in microseconds. The accounts have credits by now.
pub(super) fn processor(cluster: &Cluster) -> Result<Table> {
    let mut client = cluster.connect(DATABASE)?;
    // What it costs to wait for the disk is in the rates.
    client.batch_execute("set synchronous_commit = off")?;
    let mut table = table(&["processor time of a call, µs", "PL/pgSQL", "extension", "ratio"]);
    let baseline = "select baseline.purchase(($1::text)::jsonb)";
    let purchases = [baseline, "select outcome from billing.apply_stripe_event(($1::text)::jsonb)"];
    let texts = [baseline, "select outcome from billing.apply_stripe_event_text($1)"];
    let spends = [
        "select baseline.spend(($1::text)::uuid, 1, $2)",
        "select outcome from billing.spend_credits(($1::text)::uuid, 1, $2)",
    ];
    let kinds: [(&str, [&str; 2], Call); 3] = [
        ("an event of a pack", purchases, purchase),
        ("the same by the shim's call", texts, purchase),
        ("a spend", spends, spend),
    ];
    for (name, statements, call) in kinds {
        let [baseline, ours] = compare(&mut client, statements, call)?;
        let ratio = baseline / ours;
        table.add_row([
            name.to_owned(),
            format!("{baseline:.0}"),
            format!("{ours:.0}"),
            format!("{ratio:.2}"),
        ]);
    }
    Ok(table)
}

/// One call of a statement.
type Call = fn(&mut Client, &Statement) -> Result<()>;

fn purchase(client: &mut Client, statement: &Statement) -> Result<()> {
    let event = Event::checkout_completed(Uuid::from_u128(Uuid::new_v4().as_u128() % ACCOUNTS), "price_pack");
    client.execute(statement, &[&event.body])?;
    Ok(())
}

fn spend(client: &mut Client, statement: &Statement) -> Result<()> {
    let request = Uuid::new_v4();
    // Numbered from 1 in decimal digits, as the accounts are.
    let user = format!("{:0>32}", request.as_u128() % ACCOUNTS + 1);
    client.execute(statement, &[&user, &request.to_string()])?;
    Ok(())
}

/// The medians of two statements.
fn compare(client: &mut Client, statements: [&str; 2], call: Call) -> Result<[f64; 2]> {
    let statements = [client.prepare(statements[0])?, client.prepare(statements[1])?];
    let mut samples = [Vec::new(), Vec::new()];
    // The first calls plan the statements inside.
    for statement in &statements {
        time(client, statement, call)?;
    }
    for _ in 0..SAMPLES {
        signals::check()?;
        for (statement, samples) in statements.iter().zip(&mut samples) {
            samples.push(time(client, statement, call)?);
        }
    }
    Ok(samples.map(median))
}

fn time(client: &mut Client, statement: &Statement, call: Call) -> Result<f64> {
    let started = microseconds(client)?;
    for _ in 0..CALLS {
        call(client, statement)?;
    }
    Ok((microseconds(client)? - started) / f64::from(CALLS))
}

/// The time that the server's process has run so far.
pub(super) fn microseconds(client: &mut Client) -> Result<f64> {
    let nanoseconds = "select split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)::float8";
    let nanoseconds: f64 = client.query_one(nanoseconds, &[])?.get(0);
    Ok(nanoseconds / 1e3)
}
