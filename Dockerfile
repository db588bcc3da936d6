# Both bases can be replaced: `--build-arg RUN_IMAGE=debian:bookworm-slim` for a shell inside. Any glibc of Debian 12 or
# later will do.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# cmake is for pingora's zlib-ng, make for jemalloc.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Shown by /metrics in streamgauge_build_info.
ARG STREAMGAUGE_COMMIT=unknown
# Crates and what they compile to outlive the layer, so that a change of the source compiles the source alone.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    STREAMGAUGE_COMMIT=${STREAMGAUGE_COMMIT} cargo build --release --locked --package streamgauge \
    && mkdir -p /out/state \
    && cp target/release/streamgauge /out/

FROM ${RUN_IMAGE}
# For https upstreams, where the base has none.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/streamgauge /usr/local/bin/streamgauge
# By number: no passwd file is needed, and Kubernetes can see that it is not root.
COPY --from=build --chown=65532:65532 /out/state /var/lib/streamgauge
USER 65532:65532
ENV STREAMGAUGE_LISTEN=0.0.0.0:8080 STREAMGAUGE_LOG=json XDG_STATE_HOME=/var/lib
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/streamgauge", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/streamgauge"]
CMD ["run", "--config", "/etc/streamgauge/streamgauge.toml"]
