#!/bin/bash
# The roles of a new cluster, run by the image of Postgres once, after the extension is made: the app's users, its
# servers, and the shim with the password of its secret.
set -eu

# On a line of its own, so that a secret that cannot be read ends this script, and leaves no role without a password.
password=$(cat /run/secrets/shim)
# Strings of shell and SQL stay apart: psql quotes the password.
psql --set ON_ERROR_STOP=1 --set password="$password" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
create role app_client;
create role app_service;
select billing.grant_access('app_client', 'app_service');
create role shim login password :'password' in role app_service;
SQL
