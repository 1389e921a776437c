# Builds and starts the images by the commands of docs/install.md, which are the functions page_... put before this
# script, in a folder with `packaging`, `target/packages` and the sample catalog. $archive is a Debian with its Postgres
# $major, $bases are the names for which it stands in, and $store is where buildah keeps the images.
#
# There is no engine and no entry point of the base images: `docker` below does what they would.
set -euo pipefail
ip link set lo up
export BUILDAH_ISOLATION=chroot

b() { buildah --root "$store/root" --runroot "$store/run" "$@"; }

docker() {
    case "$1 $2" in
    'build '*) shift && b bud --pull-never --quiet "$@" > "$store/built" ;;
    'compose -f') shift 3 && compose "$@" ;;
    'compose exec') shift && compose "$@" ;;
    *) echo "docker $*: not known here" >&2 && return 1 ;;
    esac
}

# What docker compose does with the services that were made by `serve_postgres` and `shim`.
compose() {
    case "$1 $2" in
    'up '*) compose_up ;;
    'run --rm') shift 2 && compose_run "$@" ;;
    'exec -T')
        local service=$3
        shift 3
        if test "$service" = shim; then shim "$@"; else in_postgres "$@"; fi
        ;;
    *) echo "docker compose $*: not known here" >&2 && return 1 ;;
    esac
}

compose_run() { # --volume VOLUME shim ARGUMENTS
    test "$1 $3" = '--volume shim'
    shim_volumes+=("$1" "$2")
    shift 3
    shim stripe-credits "$@"
}

compose_up() {
    make_postgres localhost/stripe-credits-postgres:15 postgres
    for secret in postgres shim; do
        postgres_options+=(--volume "$PWD/secrets/$secret:/run/secrets/$secret:ro")
    done
    postgres_options+=(--volume "$PWD/packaging/docker/roles.sh:/docker-entrypoint-initdb.d/20-roles.sh:ro")
    postgres_options+=(--env POSTGRES_USER=postgres --env POSTGRES_DB=app)
    serve_postgres postgres --pwfile=/run/secrets/postgres --auth-local=trust --auth-host=scram-sha-256
    in_postgres createdb -U postgres app
    in_postgres psql -q -v ON_ERROR_STOP=1 -U postgres app -f /docker-entrypoint-initdb.d/10-stripe-credits.sql
    in_postgres /docker-entrypoint-initdb.d/20-roles.sh
    shim_volumes=()
    for secret in database_url webhook; do
        shim_volumes+=(--volume "$PWD/secrets/$secret:/run/secrets/$secret:ro")
    done
    shim_environment=(--env DATABASE_URL_FILE=/run/secrets/database_url
        --env STRIPE_WEBHOOK_SECRET_FILE=/run/secrets/webhook)
    serve_shim
}

# A container of an image with Postgres, whose host name is NAME.
make_postgres() { # IMAGE NAME
    postgres=$(b from --pull-never "$1")
    postgres_options=(--user postgres)
    shim_container=$(b from --pull-never --add-host "$2:127.0.0.1" localhost/stripe-credits:0.1.0)
    b run --user root "$postgres" -- install -d -o postgres /data /var/run/postgresql
}

in_postgres() { b run "${postgres_options[@]}" "$postgres" -- "$@"; }

# A new cluster as the entry points make it, in UTF-8, and its server.
serve_postgres() { # SUPERUSER OPTIONS-OF-INITDB
    local superuser=$1
    shift
    in_postgres initdb -D /data -U "$superuser" --encoding=UTF8 --locale=C.UTF-8 "$@" > "$store/initdb.log"
    in_postgres postgres -D /data -c unix_socket_directories=/var/run/postgresql > "$store/postgres.log" 2>&1 &
    wait_until "$store/postgres.log" in_postgres pg_isready -q -h 127.0.0.1 -U "$superuser"
}

shim() { b run "${shim_environment[@]}" "${shim_volumes[@]}" "$shim_container" -- "$@"; }

serve_shim() {
    shim stripe-credits serve > "$store/shim.log" 2>&1 &
    wait_until "$store/shim.log" listens 8787
}

listens() { (exec 3<> "/dev/tcp/127.0.0.1/$1"); }

wait_until() { # LOG COMMAND
    local log=$1
    shift
    for _ in $(seq 300); do
        if "$@" 2> "$store/waiting"; then return; fi
        sleep 0.2
    done
    cat "$log" >&2
    return 1
}

# The next ones take the same ports. A signal to buildah would not reach the program in the container; here, no other
# program has its name.
stop() {
    kill "$(pidof stripe-credits)"
    in_postgres pg_ctl stop -D /data > "$store/stopped"
    wait
    b rm "$postgres" "$shim_container" > "$store/removed"
}

# For images beside docker compose: the shim as this user of this database, and a first purchase.
purchase() { # DATABASE_URL SUPERUSER DATABASE
    shim_volumes=(--volume "$PWD/catalog.example.json:/catalog.json:ro")
    shim_environment=(--env "DATABASE_URL=$1" --env STRIPE_WEBHOOK_SECRET=whsec_of_your_endpoint)
    serve_shim
    shim stripe-credits catalog push /catalog.json
    shim stripe-credits send-test-event --user 5f2c0d8e-93a1-4c7b-8d15-2b6f0c1e9a47 --price price_pack
    in_postgres psql -U "$2" "$3" -c 'select user_id, credits_balance from billing.user_credits'
}

# The Debian under every name but distroless's, which has no shell and few libraries.
stand_in=$(b from scratch)
b add --quiet "$stand_in" "$archive" / > "$store/built"
path=/usr/lib/postgresql/$major/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
b config --env "PATH=$path" "$stand_in"
debian=$(b mount "$stand_in")
distroless=$(b from scratch)
mkdir "$store/distroless"
tar -C "$debian" -c ./lib ./lib64 ./etc/ssl ./usr/lib64 ./usr/share/zoneinfo \
    ./usr/lib/x86_64-linux-gnu/{ld-linux-x86-64.so.2,libc.so.6,libm.so.6,libgcc_s.so.1} |
    tar -C "$store/distroless" -x
b add --quiet "$distroless" "$store/distroless" / > "$store/built"
b config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$distroless"
b commit --quiet --rm "$distroless" gcr.io/distroless/cc-debian12 > "$store/built"
b commit --quiet --rm "$stand_in" stand-in > "$store/built"
b tag stand-in $bases

echo '--- Container images'
page_build
page_up
page_purchase
stop

echo '--- Self-hosted Supabase'
page_supabase_build
make_postgres localhost/stripe-credits-supabase:15 db
serve_postgres supabase_admin
in_postgres psql -q -U supabase_admin -d postgres -c '
    create role anon; create role authenticated; create role service_role bypassrls; create role postgres login'
page_supabase_create
purchase 'postgres://shim:of%20your%20choice@db/postgres' supabase_admin postgres
stop

echo '--- CloudNativePG'
page_extension_build
files=$(b from --pull-never "localhost/stripe-credits-extension:$major")
mounted=$(b mount "$files")
ls "$mounted/lib/stripe_credits.so" "$mounted/share/extension/stripe_credits.control"
b rm "$files" > "$store/removed"
page_cnpg_build
make_postgres "localhost/stripe-credits-cnpg:$major" credits-rw
serve_postgres postgres
in_postgres createdb -U postgres app
sed -n '/postInitApplicationSQL/,$ s/^ *- \(.*\)$/\1;/p' packaging/kubernetes/cluster-17.yaml |
    in_postgres psql -q -v ON_ERROR_STOP=1 -U postgres app
in_postgres psql -q -U postgres app -c 'create role shim login in role app_service'
purchase postgres://shim@credits-rw/app postgres app
stop
