//! The schema's public surface against a golden file, so that drift shows in review.
//!
//! `STRIPE_CREDITS_GOLDEN=write cargo xtask test` writes the file anew.

use std::fs;
use std::path::Path;

use stripe_credits_tests::{Connection, Database};

/// One query each: a line of the dump a row, sorted.
const PARTS: &[(&str, &str)] = &[
    (
        "Functions",
        "select format('%s(%s) -> %s %s%s', p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
                case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
                case when p.prosecdef then ' security definer' else '' end || coalesce(' ' || p.proconfig::text, ''))
         from pg_proc p where p.pronamespace = 'billing'::regnamespace",
    ),
    (
        "Types",
        "select format('%s: %s', t.typname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', '
                order by a.attnum))
         from pg_type t join pg_class c on c.oid = t.typrelid and c.relkind = 'c'
         join pg_attribute a on a.attrelid = c.oid
         where t.typnamespace = 'billing'::regnamespace group by t.typname",
    ),
    (
        "Columns",
        "select format('%s %s %s: %s%s%s', case c.relkind when 'v' then 'view' else 'table' end,
                concat(case c.relnamespace when 'billing_fdw'::regnamespace then 'billing_fdw.' end, c.relname),
                lpad(a.attnum::text, 2, '0'), a.attname || ' ' || format_type(a.atttypid, a.atttypmod),
                case when a.attnotnull then ' not null' else '' end,
                coalesce(case when a.attgenerated <> '' then ' generated ' else ' default ' end
                    || pg_get_expr(d.adbin, d.adrelid), ''))
         from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
         where c.relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace) and c.relkind in ('r', 'v')",
    ),
    (
        "Constraints",
        "select format('%s: %s', case conrelid when 0 then 'domain ' || contypid::regtype || ' as '
                    || (select t.typbasetype::regtype from pg_type t where t.oid = contypid)
                else conrelid::regclass::text end, pg_get_constraintdef(oid)) from pg_constraint
         where connamespace = 'billing'::regnamespace and contype <> 'n'",
    ),
    (
        "Indexes",
        "select pg_get_indexdef(indexrelid) from pg_index join pg_class c on c.oid = indexrelid
         where c.relnamespace = 'billing'::regnamespace",
    ),
    (
        "Triggers",
        "select format('%s: %s (%s)', tgrelid::regclass, pg_get_triggerdef(t.oid), tgenabled)
         from pg_trigger t join pg_class c on c.oid = tgrelid where c.relnamespace = 'billing'::regnamespace
         union all
         select format('event trigger %s on %s %s (%s)', evtname, evtevent, evttags, evtenabled) from pg_event_trigger",
    ),
    (
        "Row level security",
        "select format('%s: %s', relname, relrowsecurity) from pg_class
         where relnamespace = 'billing'::regnamespace and relkind = 'r'
         union all
         select format('%s policy %s: %s to %s using %s check %s', tablename, policyname, cmd, roles, qual,
                coalesce(with_check, 'none')) from pg_policies where schemaname = 'billing'",
    ),
    (
        "Options",
        "select format('%s: %s', oid::regclass, reloptions) from pg_class
         where relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace) and relkind in ('r', 'v') and reloptions is not null",
    ),
    (
        "Grants",
        "select format('schema %s: %s to %s', n.nspname, a.privilege_type, a.grantee::regrole) from pg_namespace n,
                aclexplode(n.nspacl) a where n.nspname in ('billing', 'billing_fdw') and a.grantee <> n.nspowner
         union all
         select format('%s: %s to %s', c.oid::regclass, a.privilege_type, a.grantee::regrole)
         from pg_class c, aclexplode(c.relacl) a
         where c.relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace) and c.relkind in ('r', 'v')
             and a.grantee <> c.relowner
         union all
         select format('%s: %s to %s', p.oid::regprocedure, a.privilege_type,
                case a.grantee when 0 then 'public' else a.grantee::regrole::text end)
         from pg_proc p, aclexplode(p.proacl) a
         where p.pronamespace = 'billing'::regnamespace and a.grantee <> p.proowner",
    ),
];

/// What the schema offers, a line each.
pub(crate) fn dump(c: &mut Connection) -> String {
    let mut text = String::from(
        "-- What schema billing offers, from the catalogs. Written by tests/tests/sql/schema_dump.rs; not to be executed.\n",
    );
    for (title, query) in PARTS {
        let mut lines: Vec<String> = c.column(query, &[]);
        lines.sort();
        text.extend(["\n-- ", title, "\n"]);
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

#[test]
fn the_schema_is_the_golden_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/schema.sql");
    let found = dump(&mut Database::new().connect());
    if std::env::var("STRIPE_CREDITS_GOLDEN").is_ok_and(|value| value == "write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &found).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let (golden, found): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), found.lines().collect());
    let gone: Vec<String> =
        golden.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}")).collect();
    let new: Vec<String> =
        found.iter().filter(|line| !golden.contains(line)).map(|line| format!("+ {line}")).collect();
    assert!(
        golden == found,
        "the schema is not {}; STRIPE_CREDITS_GOLDEN=write cargo xtask test writes it anew:\n{}",
        path.display(),
        [gone, new].concat().join("\n")
    );
}

#[test]
fn everything_that_people_read_has_a_comment() {
    let db = Database::new();
    let silent: Vec<String> = db.connect().column(
        "select 'function ' || p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'billing'::regnamespace and obj_description(p.oid, 'pg_proc') is null
         union all
         select case relkind when 'v' then 'view ' else 'table ' end || relname from pg_class
         where relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace) and relkind in ('r', 'v') and obj_description(oid, 'pg_class') is null
         union all
         select 'type outcome' where obj_description('billing.outcome'::regtype, 'pg_type') is null
         union all
         select 'the extension' where not exists (
             select from pg_extension e where extname = 'stripe_credits' and obj_description(e.oid, 'pg_extension') <> '')
         order by 1",
        &[],
    );
    assert!(silent.is_empty(), "\\df+ and \\d+ say nothing of:\n{}", silent.join("\n"));
}
