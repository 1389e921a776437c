// What is written instead of the shim: Express, stripe-node and node-postgres, one purchase an event.
//
// MODE=fn: one round trip to a PL/pgSQL function, the strongest usual form.
// MODE=tx: a transaction of the app's own, the usual form: claim, update, insert.
// Neither refunds, renews, parks, reads a catalog or is audited; schema.sql has their tables.

import express from "express";
import pg from "pg";
import Stripe from "stripe";

const { DATABASE_URL, MODE, POOL, PORT, STRIPE_WEBHOOK_SECRET } = process.env;
const stripe = new Stripe("sk_test_unused");
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(POOL) });
const app = express();

/** @param {{ user: string, credits: number, eventId: string, sessionId: string }} purchase */
async function byFunction({ user, credits, eventId, sessionId }) {
  const text = "select peer.apply($1, $2, $3, $4)";
  await pool.query({ name: "apply", text, values: [user, credits, eventId, sessionId] });
}

/** @param {{ user: string, credits: number, eventId: string, sessionId: string }} purchase */
async function byTransaction({ user, credits, eventId, sessionId }) {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    const claim = "insert into peer.claims (object_id, event_id) values ($1, $2) on conflict do nothing";
    const claimed = await client.query({ name: "claim", text: claim, values: [sessionId, eventId] });
    if (claimed.rowCount) {
      const add = `insert into peer.accounts as a (user_id, balance) values ($1, $2)
        on conflict (user_id) do update set balance = a.balance + excluded.balance returning balance`;
      const account = await client.query({ name: "add", text: add, values: [user, credits] });
      const post = `insert into peer.ledger (user_id, amount, balance_after, event_id, session_id)
        values ($1, $2, $3, $4, $5)`;
      const values = [user, credits, account.rows[0].balance, eventId, sessionId];
      await client.query({ name: "post", text: post, values });
    }
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK");
    throw error;
  } finally {
    client.release();
  }
}

const apply = MODE === "fn" ? byFunction : byTransaction;

app.post("/webhooks/stripe", express.raw({ type: "application/json", limit: "1mb" }), async (req, res) => {
  let event;
  try {
    event = stripe.webhooks.constructEvent(req.body, req.headers["stripe-signature"], STRIPE_WEBHOOK_SECRET);
  } catch {
    return res.status(400).json({ error: "invalid signature" });
  }
  const session = event.data.object;
  const { user_id: user, credits } = session.metadata;
  try {
    await apply({ user, credits: Number(credits), eventId: event.id, sessionId: session.id });
    res.json({ received: true });
  } catch (error) {
    console.error(error);
    res.status(500).json({ error: "failed" });
  }
});

app.listen(Number(PORT), "127.0.0.1");
