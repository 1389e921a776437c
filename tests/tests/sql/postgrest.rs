//! What PostgREST makes of the SQL interface: the HTTP status of every error that a call can raise.

use std::fs;

use stripe_credits_tests::postgrest::http_status;
use stripe_credits_tests::server_copy::repository;
use stripe_credits_tests::{Connection, Database};

/// Calls that are wrong in themselves: for each type of an argument, the value that all of a call's arguments get.
const WRONG: [&[(&str, &str)]; 5] = [
    &[],
    &[("text", "''"), ("bigint", "0"), ("integer", "0"), ("jsonb", "'[]'"), ("interval", "'0'")],
    &[("text", "' '"), ("bigint", "-1"), ("integer", "-1"), ("jsonb", "'7'"), ("interval", "'-1 day'")],
    &[
        ("text", "repeat('x', 100000)"),
        ("bigint", "9223372036854775807"),
        ("integer", "2147483647"),
        ("jsonb", "jsonb_build_object('n', repeat('x', 17000000))"),
        ("interval", "'100 years'"),
        ("timestamp with time zone", "'-infinity'"),
    ],
    &[
        ("text", "'price_unknown'"),
        ("bigint", "-9223372036854775808"),
        ("jsonb", "'{\"id\": []}'"),
        ("timestamp with time zone", "'infinity'"),
        ("boolean", "true"),
        ("jsonb[]", "array['{}', '[]', null]::jsonb[]"),
    ],
];

/// A call of every function that a role may run, with these values and nulls for other types.
fn calls(c: &mut Connection, role: &str, values: &[(&str, &str)]) -> Vec<String> {
    let (types, values): (Vec<&str>, Vec<&str>) = values.iter().copied().unzip();
    c.column(
        "select format('select %s(%s)', p.oid::regproc, array_to_string(array(
             select case when a.type = 'uuid' and cardinality($2::text[]) > 0 then 'gen_random_uuid()'
                 else coalesce(v.value, 'null') || '::' || a.type end
             from unnest(p.proargtypes::oid[]) with ordinality t (type, place)
             cross join lateral (select format_type(t.type, null) as type) a
             left join unnest($2::text[], $3::text[]) v (type, value) on v.type = a.type
             order by t.place), ', '))
         from pg_proc p
         where p.pronamespace = 'billing'::regnamespace and has_function_privilege($1, p.oid, 'execute') order by 1",
        &[&role, &types, &values],
    )
}

#[test]
fn a_wrong_call_of_any_function_is_answered_4xx() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for role in ["authenticated", "service_role"] {
        let mut raised = 0;
        for values in WRONG {
            for call in calls(&mut c, role, values) {
                c.run(&format!("begin; set local role {role}"));
                let answer = c.attempt(&call);
                c.run("rollback");
                let Err(fault) = answer else { continue };
                raised += 1;
                let status = http_status(&fault.code);
                assert!((400..500).contains(&status), "{role}, {status}: {call}: {fault:?}");
            }
        }
        assert!(role == "authenticated" || raised > 100, "{raised} calls were refused");
    }
}

#[test]
fn a_price_that_is_not_on_sale_is_answered_400_and_a_missing_right_403() {
    let db = Database::with_catalog();
    let mut service = db.connect_as("service_role");
    let fault = service.refusal("select billing.assert_known_price('price_unknown')");
    assert_eq!((fault.code.as_str(), http_status(&fault.code)), ("22023", 400));
    assert!(fault.message.contains("price_unknown"), "{fault:?}");
    service.run("set request.jwt.claims = ''");
    let mut client = db.connect_as("authenticated");
    let fault = client.refusal("select billing.assert_known_price('price_pack')");
    assert_eq!(http_status(&fault.code), 403, "{fault:?}");
}

/// The code blocks of docs/supabase.md that follow this mark, together.
fn blocks(mark: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/supabase.md")).expect("the page");
    let mark = format!("<!-- {mark} -->\n```");
    let blocks = page.split(&mark).skip(1).map(|block| block.split("```").next().unwrap_or_default());
    blocks.map(|block| block.split_once('\n').expect("a language").1).collect()
}

/// The calls of a block: the function and the names of its arguments.
fn rpcs(block: &str) -> Vec<(String, Vec<String>)> {
    let calls = block.lines().filter_map(|line| line.split_once(".rpc('"));
    let calls = calls.map(|(_, call)| {
        let (name, rest) = call.split_once('\'').expect("a name");
        let object =
            rest.split_once("{ ").map_or("", |(_, object)| object.rsplit_once(" }").expect("an end").0);
        let names = object.split(", ").filter(|field| !field.is_empty());
        let names = names.map(|field| field.split(':').next().unwrap_or_default().trim().to_owned());
        (name.to_owned(), names.collect())
    });
    calls.collect()
}

/// PostgREST finds a function by its name and the names of the arguments.
#[test]
fn every_call_of_the_page_for_supabase_exists_and_is_allowed() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (role, least) in [("authenticated", 3), ("service_role", 30)] {
        let block = blocks(&format!("calls: {role}"));
        let calls = rpcs(&block);
        assert!(calls.len() >= least, "{calls:?}");
        for (name, arguments) in calls {
            let found: i64 = c.one(
                "select count(*) from pg_proc p
                 where p.pronamespace = 'billing'::regnamespace and p.proname = $1
                     and has_function_privilege($2, p.oid, 'execute')
                     and $3::text[] <@ coalesce(p.proargnames, '{}')
                     and p.pronargs - p.pronargdefaults <= cardinality($3::text[])",
                &[&name, &role, &arguments],
            );
            assert_eq!(found, 1, "{role}: {name}({arguments:?})");
        }
        for relation in block.split(".from('").skip(1).map(|rest| rest.split('\'').next().unwrap_or_default())
        {
            let may: bool =
                c.one("select has_table_privilege($1, 'billing.' || $2, 'select')", &[&role, &relation]);
            assert!(may, "{role}: {relation}");
        }
    }
}

#[test]
fn the_statements_of_the_page_for_supabase_run() {
    let mut db = Database::empty();
    db.breaks_its_books();
    let mut c = db.connect();
    // Stands in for pg_cron: runs the job at once, as it would in its time.
    c.run(
        "create schema cron;
         create function cron.schedule(text, text, text) returns void language plpgsql
         as $$ begin perform $2::text; execute $3; end $$;",
    );
    c.run(&blocks("run: superuser"));
    let published: i64 =
        c.one("select count(*) from pg_publication_tables where schemaname = 'billing'", &[]);
    assert_eq!(published, 1);
    assert!(c.one::<bool>("select bool_and(ok) from billing.security_selfcheck()", &[]));
}
