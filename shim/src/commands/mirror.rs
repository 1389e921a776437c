//! `mirror init` and `mirror check`: makes the tables of the mirror, and compares them with the books.

use clap::Args;

use crate::commands::report::Report;
use crate::config::{DatabaseConfig, Environment, MirrorConfig};
use crate::database::Database;
use crate::error::Error;
use crate::mirror::schema::{Step, steps};
use crate::mirror::{Difference, Mirror, users_of};

/// How long an account may wait, in seconds, before that is a finding: `serve` copies it within a few seconds.
const MAX_WAIT_SECONDS: f64 = 60.0;

/// The arguments of `mirror init`.
#[derive(Args)]
pub(crate) struct Init {
    /// Only print the SQL, to be run by hand; reads no setting
    #[arg(long)]
    print: bool,
    /// The role of signed-in users, who may read their own rows [default: authenticated, if there is one]
    #[arg(long)]
    client: Option<String>,
    /// The role that MIRROR_DATABASE_URL will name for `serve`, if not the one that it names now, which owns the tables
    #[arg(long)]
    writer: Option<String>,
}

/// Makes what is missing, and prints a line for each thing.
pub(crate) async fn init(arguments: &Init, environment: &Environment) -> Result<(), Error> {
    let steps = steps(arguments.client.as_deref(), arguments.writer.as_deref());
    if arguments.print {
        for Step { what, make, .. } in &steps {
            println!("-- {what}\n{make};\n");
        }
        return Ok(());
    }
    let mirror = Mirror::new(&MirrorConfig::read(environment)?);
    // Stripe's texts are UTF-8.
    if !mirror.is("current_setting('server_encoding') = 'UTF8'").await? {
        return Err(Error::MirrorEncoding);
    }
    for step in &steps {
        match make(&mirror, step).await? {
            Some(true) => println!("made   {}", step.what),
            Some(false) => println!("there  {}", step.what),
            None => println!("-      {}: no such role", step.what),
        }
    }
    // As serve will write: the tables have the columns.
    mirror.check().await?;
    println!(
        "serve fills it; after a restore, or for another mirror than before: stripe-credits mirror check --repair"
    );
    Ok(())
}

/// Makes one thing. Returns whether it had to be made; `None` if this database has no use for it.
async fn make(mirror: &Mirror, step: &Step) -> Result<Option<bool>, Error> {
    if let Some(is_wanted) = &step.is_wanted
        && !mirror.is(is_wanted).await?
    {
        return Ok(None);
    }
    if mirror.is(&step.is_there).await? {
        return Ok(Some(false));
    }
    mirror.run(&step.make, &[]).await?;
    Ok(Some(true))
}

/// What a comparison found.
struct Check<'a> {
    database: &'a Database,
    mirror: &'a Mirror,
    report: Report,
    compared: i64,
    waiting: usize,
    repaired: i64,
}

/// Compares all accounts, a page at a time, and prints each that the mirror has otherwise; with `repair`, writes it.
pub(crate) async fn check(repair: bool, environment: &Environment) -> Result<(), Error> {
    let (books, mirror) = MirrorConfig::read_with_books(environment)?;
    compare(&books, &mirror, repair).await
}

async fn compare(books: &DatabaseConfig, mirror: &MirrorConfig, repair: bool) -> Result<(), Error> {
    let (database, mirror) = (Database::new(books), Mirror::new(mirror));
    if repair {
        while mirror.copy_due(&database).await?.is_full {}
    }
    let mut check = Check {
        database: &database,
        mirror: &mirror,
        report: Report::new(),
        compared: 0,
        waiting: 0,
        repaired: 0,
    };
    let mut after: Option<String> = None;
    loop {
        let page = mirror.page(&database, after.as_deref()).await?;
        let is_last = !mirror.is_full(&page);
        let until = page.last.clone().filter(|_| !is_last);
        let differences = mirror.differences(&page, after.as_deref(), until.as_deref()).await?;
        check.compared += page.count;
        if !differences.is_empty() {
            check.examine(&differences, repair).await?;
        }
        if is_last {
            break;
        }
        after = until;
    }
    let Check { report, compared, waiting, repaired, .. } = check;
    report.print(&format!(
        "{compared} accounts compared, {waiting} of them about to be mirrored, {repaired} repaired"
    ));
    report.finish()
}

impl Check<'_> {
    /// Looks at differences again: what was changing is none.
    async fn examine(&mut self, first: &[Difference], repair: bool) -> Result<(), Error> {
        let users = users_of(&first.iter().collect::<Vec<_>>());
        let (accounts, second) = self.mirror.differences_of(self.database, &users).await?;
        let is_stable = |now: &&Difference| {
            first.iter().any(|then| {
                (&then.user, then.version, then.mirror_version)
                    == (&now.user, now.version, now.mirror_version)
            })
        };
        let (faults, others): (Vec<&Difference>, Vec<&Difference>) =
            second.iter().filter(is_stable).partition(|difference| !is_about_to_be_mirrored(difference));
        self.waiting += others.len();
        if faults.is_empty() {
            return Ok(());
        }
        if repair {
            self.repaired += self.mirror.repair(&accounts, &faults).await?;
            // What serve copied meanwhile, and the mirror refused as older, it is to copy again.
            self.database.mirror_again(&users_of(&faults)).await?;
        }
        for fault in faults {
            let line = describe(fault);
            if repair { self.report.print(&line) } else { self.report.finding(&line) }
        }
        Ok(())
    }
}

/// Whether `serve` will copy it by itself: not what the mirror would refuse, nor what has waited too long for it.
fn is_about_to_be_mirrored(difference: &Difference) -> bool {
    let is_due = difference.waits_seconds.is_some_and(|seconds| seconds < MAX_WAIT_SECONDS);
    is_due
        && difference
            .version
            .is_none_or(|version| difference.mirror_version.is_none_or(|mirror| mirror < version))
}

fn describe(difference: &Difference) -> String {
    let Difference { user, what, version, mirror_version, waits_seconds } = difference;
    let number =
        |version: &Option<i64>| version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let waits = waits_seconds.map_or_else(String::new, |seconds| format!(", waits since {seconds:.0} s"));
    format!(
        "{user}  {what}: version {} in the books, {} in the mirror{waits}",
        number(version),
        number(mirror_version)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serve_copies_by_itself_is_no_fault_unless_it_waits_for_long() {
        let difference = |version, mirror_version, waits_seconds| Difference {
            user: "c0de".to_owned(),
            what: "other credits".to_owned(),
            version,
            mirror_version,
            waits_seconds,
        };
        for (version, mirror_version, waits_seconds, expected) in [
            (Some(2), Some(1), Some(1.0), true),
            (Some(2), None, Some(1.0), true),
            (None, Some(2), Some(1.0), true),
            (Some(2), Some(1), Some(61.0), false),
            (Some(2), Some(1), None, false),
            (Some(2), Some(3), Some(1.0), false),
            (Some(2), Some(2), Some(1.0), false),
            (None, Some(2), None, false),
        ] {
            let one = difference(version, mirror_version, waits_seconds);
            assert_eq!(is_about_to_be_mirrored(&one), expected, "{one:?}");
        }
        assert_eq!(
            describe(&difference(Some(2), None, None)),
            "c0de  other credits: version 2 in the books, none in the mirror"
        );
    }
}
