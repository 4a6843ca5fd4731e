# docker build -t vecho:0.1.0 .
#
# The image holds the program, the C library that it is linked to, their licences, and nothing else: no shell, no
# package manager.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# Relative relocations take 7 KB instead of 540 KB. They need glibc 2.36, which the image holds.
RUN cargo rustc --locked --profile dist --bin vecho -- -C link-arg=-Wl,-z,pack-relative-relocs
RUN bash scripts/image-root target/dist/vecho /image

FROM scratch
COPY --from=build /image/ /
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# Mount a volume there; on a read-only root without one, the disk tier stays off.
ENV VECHO_DISK_PATH=/var/cache/vecho
# Requests that wait for the upstream together end together: this many freed blocks of a size are kept at hand, where
# the C library keeps 7. It takes a tenth off the processor time of a miss, and at most 1.1 MB for each thread.
ENV GLIBC_TUNABLES=glibc.malloc.tcache_count=32
# The public port stays on loopback unless VECHO_LISTEN says otherwise; likewise the ops port and VECHO_ADMIN_LISTEN.
EXPOSE 7861 7862
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/vecho", "healthcheck"]
ENTRYPOINT ["/vecho"]
