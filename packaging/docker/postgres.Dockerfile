# Postgres with the extension; the context is the folder of packages that `cargo xtask package` writes.
# BASE may be any image with Debian's or PGDG's packages of this version, such as CloudNativePG's.
ARG PG_MAJOR=17
ARG BASE=docker.io/library/postgres:${PG_MAJOR}-bookworm
FROM ${BASE}
ARG PG_MAJOR
USER root
COPY postgresql-${PG_MAJOR}-stripe-credits_*.deb /tmp/
RUN DEBIAN_FRONTEND=noninteractive dpkg --install /tmp/postgresql-${PG_MAJOR}-stripe-credits_*.deb && rm /tmp/*.deb
# What the image runs once in each new cluster; images without that folder's convention ignore it.
RUN mkdir -p /docker-entrypoint-initdb.d \
 && echo 'create extension stripe_credits;' > /docker-entrypoint-initdb.d/10-stripe-credits.sql
# The user postgres in images that do not start as root, as Kubernetes wants it.
ARG USER=root
USER ${USER}
