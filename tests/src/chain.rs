//! The hashes of the ledger by their description, computed in SQL: what whoever holds the disk can do, too.

use uuid::Uuid;

use crate::connection::Connection;

/// The hash of a row without metadata, whose bytes no SQL function shows.
const ROW_HASH: &str = "
    create or replace function pg_temp.field(p_value bytea) returns bytea language sql as $$
        select coalesce(int4send(octet_length(p_value)) || p_value, '\\xffffffff')
    $$;
    create or replace function pg_temp.field(p_text text) returns bytea language sql as $$
        select pg_temp.field(convert_to(p_text, 'UTF8'))
    $$;
    create or replace function pg_temp.field(p_number bigint) returns bytea language sql as $$
        select pg_temp.field(int8send(p_number))
    $$;
    create or replace function pg_temp.row_hash(p_previous bytea, t billing.credit_transactions) returns bytea
    language sql as $$
        select sha256('\\x01'::bytea || pg_temp.field(p_previous) || pg_temp.field(uuid_send(t.user_id))
            || pg_temp.field(t.id::bigint) || pg_temp.field(t.operation_id::bigint)
            || pg_temp.field(t.transaction_type::text) || pg_temp.field(t.amount::bigint)
            || pg_temp.field(t.grant_id) || pg_temp.field(t.pool::text) || pg_temp.field(t.balance_after)
            || pg_temp.field(t.description) || pg_temp.field(null::bytea) || pg_temp.field(t.stripe_event_id)
            || pg_temp.field(t.stripe_checkout_session_id) || pg_temp.field(t.stripe_payment_intent_id)
            || pg_temp.field(t.stripe_invoice_id) || pg_temp.field(t.request_id)
            || pg_temp.field((extract(epoch from t.created_at) * 1000000)::bigint)
            || pg_temp.field((extract(epoch from t.recorded_at) * 1000000)::bigint))
    $$";

impl Connection {
    /// Computes all hashes of a user's ledger anew, and the account's. None of its rows may have metadata.
    pub fn rehash(&mut self, user: Uuid) {
        self.rehash_from(user, 1);
    }

    /// The same from a row on.
    pub fn rehash_from(&mut self, user: Uuid, from: i64) {
        self.run(ROW_HASH);
        self.run(&format!(
            "do $$
             declare
                 v_row billing.credit_transactions;
                 v_hash bytea := coalesce(
                     (select hash from billing.credit_transactions where user_id = '{user}' and id = {from} - 1), '');
             begin
                 alter table billing.credit_transactions disable trigger user;
                 for v_row in select * from billing.credit_transactions where user_id = '{user}' and id >= {from} order by id
                 loop
                     assert v_row.metadata is null;
                     v_hash := pg_temp.row_hash(v_hash, v_row);
                     update billing.credit_transactions set hash = v_hash where user_id = '{user}' and id = v_row.id;
                 end loop;
                 update billing.accounts set last_hash = v_hash where user_id = '{user}';
                 alter table billing.credit_transactions enable always trigger append_only;
                 alter table billing.credit_transactions enable always trigger append_only_rows;
             end $$"
        ));
    }
}
