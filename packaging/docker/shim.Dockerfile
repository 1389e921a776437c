# The shim alone; the context is the folder of packages that `cargo xtask package` writes.
FROM docker.io/library/debian:bookworm-slim AS unpacked
COPY stripe-credits-*.tar.gz /tmp/shim.tar.gz
RUN mkdir /tmp/shim && tar -xzf /tmp/shim.tar.gz --strip-components=1 -C /tmp/shim

# libc, libgcc and the authorities of TLS certificates.
FROM gcr.io/distroless/cc-debian12
COPY --from=unpacked /tmp/shim/bin/stripe-credits /usr/bin/stripe-credits
# Distroless's user nonroot, by number so that Kubernetes can see that it is not root.
USER 65532:65532
# In a container, others reach the ports: publish 8787, and never 8788.
ENV LISTEN=0.0.0.0:8787 OPS_LISTEN=0.0.0.0:8788
EXPOSE 8787
ENTRYPOINT ["/usr/bin/stripe-credits"]
CMD ["serve"]
