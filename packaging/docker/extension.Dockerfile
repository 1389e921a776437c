# The extension alone, as CloudNativePG mounts it into its own image of Postgres 18 or later; the context is the folder
# of packages that `cargo xtask package` writes.
ARG PG_MAJOR=18
FROM docker.io/library/debian:bookworm-slim AS unpacked
ARG PG_MAJOR
COPY postgresql-${PG_MAJOR}-stripe-credits-*.tar.gz /tmp/extension.tar.gz
RUN mkdir -p /image/share \
 && tar -xzf /tmp/extension.tar.gz --strip-components=1 -C /image \
 && mv /image/extension /image/share/extension

FROM scratch
COPY --from=unpacked /image/lib /lib
COPY --from=unpacked /image/share /share
