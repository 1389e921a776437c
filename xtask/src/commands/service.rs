//! The whole service: a cluster with the extension and the sample catalog, and the shim in front of it.

use std::path::{Path, PathBuf};

use uuid::Uuid;
use xtask::build::Flavour;
use xtask::cluster::{Cluster, Options};
use xtask::shim::Shim;
use xtask::stages::Stages;
use xtask::workspace;
use xtask::{Result, install, process};

/// The app's database.
const DATABASE: &str = "app";
/// The shim's role: it has the service role's rights and no others.
const SHIM_ROLE: &str = "shim";

/// A running service. The fields are dropped in this order: first the client, then its server.
pub(crate) struct Service {
    shim: Shim,
    cluster: Cluster,
    binary: PathBuf,
    webhook_secret: String,
}

impl Service {
    /// Installs what is missing, builds everything and starts it.
    pub(crate) fn start(flavour: Flavour, stages: &mut Stages) -> Result<Self> {
        stages.run("tools: apt packages", install::tools)?;
        let binary = stages.run("build, and install the extension", || install::build(flavour))?.shim;
        let cluster = stages.run("cluster: make and start", start_cluster)?;
        push_catalog(&cluster, &binary, &workspace::sample_catalog())?;

        // A new secret each time, so that nothing signed for another service is accepted.
        let webhook_secret = format!("whsec_{}", Uuid::new_v4().simple());
        let shim = Shim::start(
            &binary,
            &[("DATABASE_URL", &shim_url(&cluster)), ("STRIPE_WEBHOOK_SECRET", &webhook_secret)],
        )?;
        Ok(Self { shim, cluster, binary, webhook_secret })
    }

    /// Where Stripe posts to.
    pub(crate) fn webhook_url(&self) -> String {
        self.shim.url("/webhooks/stripe")
    }

    /// What Stripe signs with.
    pub(crate) fn webhook_secret(&self) -> &str {
        &self.webhook_secret
    }

    /// A connection to the app's database, as its superuser.
    pub(crate) fn connect(&self) -> Result<postgres::Client> {
        self.cluster.connect(DATABASE)
    }

    /// Makes the catalog match a document, and returns the shim's report of what changed.
    pub(crate) fn push_catalog(&self, document: &Path) -> Result<String> {
        push_catalog(&self.cluster, &self.binary, document)
    }

    /// Prints command lines for trying the service by hand.
    pub(crate) fn print_ways_in(&self) {
        let Self { shim, cluster, binary, webhook_secret } = self;
        let (psql, binary) = (cluster.psql(DATABASE), binary.display());
        let (webhook, ready, metrics) =
            (self.webhook_url(), shim.operators_url("/readyz"), shim.operators_url("/metrics"));
        let user = Uuid::new_v4();
        println!(
            "
Look at the books:
  {psql}
  {psql} -c 'select * from billing.user_credits'
  {psql} -c 'select * from billing.credit_transactions'
Query the shim, forge a delivery, and send one signed as Stripe does:
  curl -i {ready}
  curl -i {metrics}
  curl -i {webhook} -H 'Stripe-Signature: t=1,v1=00' -d '{{}}'
  {binary} send-test-event --url {webhook} --secret {webhook_secret} --user {user} --price price_pack"
        );
    }
}

fn start_cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Options::default())?;
    cluster.create_database(DATABASE)?;
    let role = format!("create role {SHIM_ROLE} login in role service_role");
    cluster.connect(DATABASE)?.batch_execute(&role)?;
    Ok(cluster)
}

fn push_catalog(cluster: &Cluster, binary: &Path, document: &Path) -> Result<String> {
    let mut command = process::server_command(binary, None, "KILL");
    command.args(["catalog", "push"]).arg(document).env("DATABASE_URL", shim_url(cluster));
    process::output(&mut command)
}

fn shim_url(cluster: &Cluster) -> String {
    format!("postgres://{SHIM_ROLE}@127.0.0.1:{}/{DATABASE}", cluster.port())
}
