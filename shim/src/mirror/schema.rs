//! The mirror's tables, made by `mirror init`: whoever owns the app's database may run it, and needs to be no superuser.

use crate::mirror::statements::{CREDITS, TRANSACTIONS};

/// The role of signed-in users that Supabase has.
const DEFAULT_CLIENT: &str = "authenticated";

/// One thing to make.
pub(crate) struct Step {
    pub(crate) what: String,
    /// A boolean expression: whether it is there.
    pub(crate) is_there: String,
    /// Whether it is to be made in this database: a boolean expression.
    pub(crate) is_wanted: Option<String>,
    pub(crate) make: String,
}

impl Step {
    fn new(what: impl Into<String>, is_there: impl Into<String>, make: impl Into<String>) -> Self {
        Self { what: what.into(), is_there: is_there.into(), is_wanted: None, make: make.into() }
    }
}

/// Everything that the mirror needs, in order.
///
/// `client` is the role of signed-in users, which may read their own rows; by default `authenticated`, if there is one.
/// `writer` is the role of `MIRROR_DATABASE_URL` in production, if it is not the one that makes the tables and owns them.
pub(crate) fn steps(client: Option<&str>, writer: Option<&str>) -> Vec<Step> {
    let mut steps = vec![Step::new(
        "schema billing_mirror",
        "to_regnamespace('billing_mirror') is not null",
        "create schema billing_mirror",
    )];
    steps.push(table("user_credits", &CREDITS, &["mirrored_at timestamptz not null"]));
    steps.push(table("credit_transactions", &TRANSACTIONS, &["primary key (user_id, id)"]));
    steps.push(Step::new(
        "function billing_mirror.current_user_id()",
        "to_regprocedure('billing_mirror.current_user_id()') is not null",
        CURRENT_USER,
    ));
    for table in ["user_credits", "credit_transactions"] {
        steps.push(Step::new(
            format!("row level security of billing_mirror.{table}"),
            format!(
                "(select c.relrowsecurity from pg_class c where c.oid = 'billing_mirror.{table}'::regclass)"
            ),
            format!("alter table billing_mirror.{table} enable row level security"),
        ));
        steps.push(Step::new(
            format!("policy own_rows on billing_mirror.{table}"),
            policy_exists(table, "own_rows"),
            format!(
                "create policy own_rows on billing_mirror.{table} for select to public
    using (user_id = (select billing_mirror.current_user_id()))"
            ),
        ));
    }
    let (role, is_default) = client.map_or((DEFAULT_CLIENT, true), |client| (client, false));
    steps.extend(rights(role, &["select"]).into_iter().map(|step| Step {
        is_wanted: is_default.then(|| format!("to_regrole(quote_ident({})) is not null", literal(role))),
        ..step
    }));
    if let Some(writer) = writer {
        steps.extend(rights(writer, &["select", "insert", "update", "delete"]));
        for table in ["user_credits", "credit_transactions"] {
            let make = format!(
                "create policy writer on billing_mirror.{table} for all to {}
    using (true) with check (true)",
                identifier(writer)
            );
            steps.push(Step::new(
                format!("policy writer on billing_mirror.{table}"),
                policy_exists(table, "writer"),
                make,
            ));
        }
    }
    steps
}

/// Whom the policies take the session for. It is made once: an app that says it in another way replaces it.
const CURRENT_USER: &str = "do $make$
begin
    -- Supabase's. Elsewhere the JWT's sub, as PostgREST sets it, or what the app sets for its transaction.
    if to_regprocedure('auth.uid()') is not null then
        create function billing_mirror.current_user_id() returns uuid language sql stable as 'select auth.uid()';
    else
        create function billing_mirror.current_user_id() returns uuid language sql stable as $$
            select coalesce(
                nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub',
                nullif(current_setting('app.user_id', true), ''))::uuid
        $$;
    end if;
end
$make$";

fn table(name: &str, columns: &[(&str, &str)], rest: &[&str]) -> Step {
    let columns = columns.iter().map(|(name, kind)| format!("{name} {kind}"));
    let lines: Vec<String> = columns.chain(rest.iter().map(|rest| (*rest).to_owned())).collect();
    Step::new(
        format!("table billing_mirror.{name}"),
        format!("to_regclass('billing_mirror.{name}') is not null"),
        format!("create table billing_mirror.{name} (\n    {}\n)", lines.join(",\n    ")),
    )
}

fn rights(role: &str, privileges: &[&str]) -> Vec<Step> {
    let all = privileges.join(", ");
    let (name, role_literal) = (identifier(role), literal(role));
    let on_schema = Step::new(
        format!("usage of schema billing_mirror by {name}"),
        format!("has_schema_privilege({role_literal}, 'billing_mirror', 'usage')"),
        format!("grant usage on schema billing_mirror to {name}"),
    );
    let on_table = |table: &str| {
        let has = |privilege: &&str| {
            format!("has_table_privilege({role_literal}, 'billing_mirror.{table}', '{privilege}')")
        };
        let has: Vec<String> = privileges.iter().map(has).collect();
        Step::new(
            format!("{all} on billing_mirror.{table} by {name}"),
            has.join(" and "),
            format!("grant {all} on billing_mirror.{table} to {name}"),
        )
    };
    vec![on_schema, on_table("user_credits"), on_table("credit_transactions")]
}

fn policy_exists(table: &str, policy: &str) -> String {
    format!(
        "exists (select from pg_policies p where p.schemaname = 'billing_mirror' and p.tablename = '{table}'
            and p.policyname = '{policy}')"
    )
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
