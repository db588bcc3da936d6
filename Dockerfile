# syntax=docker/dockerfile:1
# The build and run images can be replaced, as where no registry is reached: see docs/docker.md.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
RUN command -v cmake >/dev/null || { apt-get update && apt-get install -y --no-install-recommends cmake g++; }
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY bench/loadgen/Cargo.toml bench/loadgen/Cargo.toml
COPY src src
# The load program is a member of the workspace, but no part of the image; nor are tests and benches, whose files cargo only
# wants to see.
RUN mkdir -p bench/loadgen/src benches tests/proxy config && echo 'fn main() {}' > bench/loadgen/src/main.rs \
    && touch benches/gauge.rs benches/record.rs tests/proxy/main.rs
RUN cargo build --release --locked --bin streamgauge && strip -o /streamgauge target/release/streamgauge

FROM ${RUN_IMAGE}
COPY --from=build /streamgauge /usr/local/bin/streamgauge
# In a container the port must be reachable from outside it; the admin address stays on its loopback unless it is given a
# token: see docs/docker.md.
ENV STREAMGAUGE_LISTEN=0.0.0.0:8080 XDG_STATE_HOME=/tmp
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s CMD ["/usr/local/bin/streamgauge", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/streamgauge"]
CMD ["run", "--config", "/etc/streamgauge/streamgauge.toml"]
