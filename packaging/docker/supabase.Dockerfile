# Supabase's Postgres with the extension; the context is the folder of packages that `cargo xtask package` writes.
ARG PG_MAJOR=15
ARG BASE
FROM ${BASE}
ARG PG_MAJOR
USER root
COPY postgresql-${PG_MAJOR}-stripe-credits-*.tar.gz /tmp/extension.tar.gz
# Its folders are not Debian's, and differ between its versions: pg_config knows them.
RUN mkdir /tmp/extension \
 && tar -xzf /tmp/extension.tar.gz --strip-components=1 -C /tmp/extension \
 && install -m 644 /tmp/extension/lib/* "$(pg_config --pkglibdir)" \
 && install -m 644 /tmp/extension/extension/* "$(pg_config --sharedir)/extension" \
 && rm -r /tmp/extension /tmp/extension.tar.gz
