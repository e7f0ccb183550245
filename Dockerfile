# The gateway as one static file in an empty image. Build it with
#   docker build --build-arg VERSION=$(git describe --tags --always) -t flyscreen .
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 GOTOOLCHAIN=local go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/flyscreen ./cmd/flyscreen \
 && mkdir /out/data

FROM scratch
# Certificate authorities for brokers over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/flyscreen /flyscreen
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
ENV FLYSCREEN_DATA_DIR=/data \
    FLYSCREEN_HTTP_LISTEN=0.0.0.0:8080
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s CMD ["/flyscreen", "healthcheck"]
# Outside loopback the gateway wants an issuer (auth.issuers): give it a file or FLYSCREEN_AUTH_ISSUERS.
ENTRYPOINT ["/flyscreen"]
CMD ["serve"]
