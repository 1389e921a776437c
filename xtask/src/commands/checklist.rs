//! `cargo xtask checklist`: the first twelve scenarios at Stripe, in test mode, with a key of the user's.

use std::env;

use clap::Args;
use uuid::Uuid;
use xtask::build::Flavour;
use xtask::checklist::api::{Api, STRIPE};
use xtask::checklist::{self, Ended, Played, Shop};
use xtask::cluster::{Cluster, Options};
use xtask::shim::Shim;
use xtask::stages::Stages;
use xtask::{Error, Result, install};

/// The database of the run.
const DATABASE: &str = "checklist";
/// A page that nobody has to see: Stripe returns the buyer there.
const RETURN_URL: &str = "https://example.com/";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Leave out what a person has to pay in a browser
    #[arg(long)]
    unattended: bool,
}

/// Plays them with a cluster and a shim of their own.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let key = env::var("STRIPE_SECRET_KEY").map_err(|_| {
        Error::Unmet("set STRIPE_SECRET_KEY to a secret key of test mode, sk_test_…".to_owned())
    })?;
    let base = env::var("STRIPE_API_BASE").unwrap_or_else(|_| STRIPE.to_owned());
    // Before anything is built: a live key is refused.
    let stripe = Api::new(&base, &key)?;

    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    let binary = stages.run("build, and install the extension", || install::build(Flavour::Dev))?.shim;
    let cluster = stages.run("cluster: make and start", || Cluster::start(Options::default()))?;
    cluster.create_database(DATABASE)?;
    let secret = || Uuid::new_v4().simple().to_string();
    let (webhook_secret, jwt_secret) = (format!("whsec_{}", secret()), format!("{}{}", secret(), secret()));
    let shim = Shim::start(
        &binary,
        &[
            ("DATABASE_URL", &format!("{}/{DATABASE}", cluster.server_url())),
            ("STRIPE_WEBHOOK_SECRET", &webhook_secret),
            ("STRIPE_SECRET_KEY", &key),
            ("STRIPE_API_BASE", &base),
            ("JWT_SECRET", &jwt_secret),
            ("CHECKOUT_SUCCESS_URL", RETURN_URL),
            ("CHECKOUT_CANCEL_URL", RETURN_URL),
        ],
    )?;
    let shop = Shop {
        stripe: &stripe,
        shim: &shim.url(""),
        webhook_secret: &webhook_secret,
        jwt_secret: &jwt_secret,
        has_buyer: !arguments.unattended,
    };
    let played = checklist::play(&shop, cluster.connect(DATABASE)?, tell)?;
    let failed = played.iter().filter(|played| matches!(played.ended, Ended::Failed(_))).count();
    if failed == 0 { Ok(()) } else { Err(Error::Unmet(format!("{failed} scenarios failed"))) }
}

fn tell(played: &Played) {
    let Played { number, title, ended } = played;
    match ended {
        Ended::Passed => println!("[x] {number:>2}  {title}"),
        Ended::LeftOut => println!("[ ] {number:>2}  {title}: left out, since a person has to pay it"),
        Ended::Failed(fault) => println!("[!] {number:>2}  {title}\n        {fault}"),
    }
}
