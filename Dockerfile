# Cross-compiles on the builder's own platform: docker buildx build --platform linux/amd64,linux/arm64 .
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src

COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false \
        -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" \
        -o /out/platform-api .

# What a scratch image lacks: a name for the user, and directories that the user owns.
RUN mkdir /out/etc && mkdir -m 0700 /out/data /out/tmp \
 && echo 'nonroot:x:65532:65532::/data:/sbin/nologin' > /out/etc/passwd \
 && echo 'nonroot:x:65532:' > /out/etc/group

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/etc/passwd /out/etc/group /etc/
COPY --from=build --chown=65532:65532 /out/tmp /tmp
# Before VOLUME: a new named volume takes its owner from the image's directory.
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/platform-api /usr/local/bin/platform-api

ENV PATH=/usr/local/bin \
    PLATFORM_API_ADDR=:3001 \
    PLATFORM_API_DATA_DIR=/data
USER 65532:65532
VOLUME /data
EXPOSE 3001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/platform-api"]
CMD ["serve"]
