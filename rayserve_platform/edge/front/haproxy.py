"""A configuration for HAProxy 2.6 (Debian 12) and newer.

Everything it refuses or takes off, an ingress refuses or takes off as well, apart from what
Serve's own proxy answers before an ingress is asked: `/-/…`, RayServeAPIService and the headers of
`ORDERS`.
"""

from collections.abc import Iterator

from rayserve_platform.edge.front.site import NOT_FOUND, ODD, TEXTS, TOO_LARGE, Site, header_pattern
from rayserve_platform.edge.front.site import body as error_body
from rayserve_platform.edge.headers import ORDERS, PREFIXES
from rayserve_platform.edge.shape import ODD_ESCAPE, ODD_PATH, ONCE

CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""For TLS 1.2; those of 1.3 are all good."""
LINE = (
    '{"time":"%tr","client":"%ci","method":"%HM","path":"%[var(txn.path),json(utf8s)]",'
    '"status":%ST,"request_ms":%TR,"total_ms":%Ta,"state":"%ts"}'
)
"""A line of the log, in HAProxy's log format."""
GRPC = r"^application/grpc(\+[a-z]+)?\s*(;|$)"
"""The content type of gRPC; not that of gRPC-Web, which nothing here speaks."""
XFCC = (
    r"Cert=\"-----BEGIN%%20CERTIFICATE-----%%0A%[ssl_c_der,base64,url_enc]"
    r"%%0A-----END%%20CERTIFICATE-----\""
)
"""The client's certificate in Envoy's form, in HAProxy's log format."""
GRPC_INVALID_ARGUMENT, GRPC_RESOURCE_EXHAUSTED, GRPC_UNIMPLEMENTED = 3, 8, 12


def render(site: Site) -> str:
    """Return the configuration's text.

    Raises:
        ValueError: when HAProxy would not find the certificate's key.
    """
    lines = [*_global(site), "", *_defaults(site), "", *_frontend(site), "", *_backends(site)]
    return "\n".join(lines) + "\n"


def _global(site: Site) -> Iterator[str]:
    yield "# Made by `rayserve edge render --server haproxy`."
    yield "global"
    yield f"    maxconn {site.max_connections}"
    yield "    log stderr format raw local0 info"
    if site.user:
        yield f"    user {site.user}"
    yield f"    ssl-default-bind-ciphers {CIPHERS}"
    yield "    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets"
    if _needs_sibling(site):
        yield "    ssl-load-extra-files key"
        yield "    ssl-load-extra-del-ext"
    yield f"    tune.h2.max-concurrent-streams {site.max_streams}"
    yield "    tune.http.maxhdr 100"


def _needs_sibling(site: Site) -> bool:
    """Say whether HAProxy has to look for the key beside the certificate.

    Raises:
        ValueError: when it would look elsewhere: it has no setting for a key's path.
    """
    if site.key is None or site.key == site.certificate:
        return False
    if site.certificate.suffix != ".crt" or site.key != site.certificate.with_suffix(".key"):
        raise ValueError(
            "key: HAProxy wants the key in the certificate's file (then leave --key out), or "
            "beside it as NAME.key of NAME.crt, as in a mounted Kubernetes Secret"
        )
    return True


def _defaults(site: Site) -> Iterator[str]:
    yield "defaults"
    yield "    mode http"
    yield "    log global"
    # Without the query: it may hold a credential.
    yield f"    log-format '{LINE}'"
    yield "    # A client that left is no reason to go on working."
    yield "    option abortonclose"
    yield "    option dontlognull"
    yield "    timeout connect 5s"
    yield f"    timeout http-request {site.header_s}s"
    yield f"    timeout http-keep-alive {min(60, site.idle_s)}s"
    yield f"    timeout client {site.idle_s}s"
    yield f"    timeout server {site.answer_s}s"
    yield f"    timeout tunnel {site.answer_s}s"
    for status, text in TEXTS.items():
        yield (
            f"    http-error status {status} content-type application/json "
            f"string '{error_body(status, text)}'"
        )


def _frontend(site: Site) -> Iterator[str]:
    verify = f" ca-file {site.client_ca} verify optional" if site.client_ca else ""
    yield "frontend edge"
    yield f"    bind {site.listen} ssl crt {site.certificate} alpn h2,http/1.1{verify}"
    yield "    http-request set-var(txn.path) path"
    typed = f"{{ req.hdr(content-type) -m reg -i '{GRPC}' }} {{ req.ver 2.0 }}"
    yield f"    http-request set-var(txn.grpc) bool(true) if {typed}"
    yield "    acl grpc var(txn.grpc) -m bool"
    yield from _refusals(site)
    yield from _headers(site)
    if site.grpc is not None:
        yield "    use_backend serve_grpc if grpc"
    yield "    default_backend serve_http"


def _refusals(site: Site) -> Iterator[str]:
    """Yield what refuses a request before anything of it goes further."""
    yield "    # Two servers may read these as two requests, or as two callers. Of a length and an"
    yield "    # encoding together HAProxy itself drops the length (RFC 9112, section 6.3)."
    for name in ONCE:
        header = name.decode()
        yield f"    acl odd req.fhdr_cnt({header}) gt 1"
    yield "    acl odd req.fhdr_cnt(host) eq 0"
    yield f"    acl odd path,url_dec -m reg '{ODD_PATH}'"
    yield f"    acl odd path -m reg '{ODD_ESCAPE}'"
    yield "    acl odd method CONNECT TRACE"
    yield from _answer(400, ODD, GRPC_INVALID_ARGUMENT, "odd")
    yield "    # What Serve's own proxy answers by itself, whoever asks."
    yield "    acl serves_own path,url_dec -m beg -i /-/ /ray."
    yield "    acl serves_own path,url_dec -m str -i /-"
    yield from _answer(404, NOT_FOUND, GRPC_UNIMPLEMENTED, "serves_own")
    limit = TOO_LARGE.format(limit=site.max_body_bytes / 2**20)
    yield f"    acl too_large req.hdr_val(content-length) gt {site.max_body_bytes}"
    yield from _answer(413, limit, GRPC_RESOURCE_EXHAUSTED, "too_large")
    if site.grpc is None:
        yield from _answer(404, "There is no gRPC here.", GRPC_UNIMPLEMENTED, "grpc")


def _answer(status: int, text: str, grpc_status: int, when: str) -> Iterator[str]:
    """Yield a refusal in gRPC's shape and in HTTP's."""
    yield (
        "    http-request return status 200 "
        f'hdr grpc-status {grpc_status} hdr grpc-message "{text}" if grpc {when}'
    )
    yield (
        f"    http-request return status {status} content-type application/json "
        f"string '{error_body(status, text)}' if {when}"
    )


def _headers(site: Site) -> Iterator[str]:
    """Yield what is taken off a request and what is put on."""
    yield "    # With _ for -: some servers make the same variable of both."
    yield f"    http-request del-header {header_pattern((*PREFIXES, *ORDERS))} -m reg"
    yield f"    http-request del-header {header_pattern(('x-forwarded-', 'x-real-ip'))} -m reg"
    yield "    http-request del-header ^(forwarded|upgrade|http2-settings|proxy)$ -m reg"
    if site.one_app:
        yield "    # Serve's choice of an application; there is one."
        yield "    http-request del-header application"
    yield "    http-request set-header x-forwarded-for %[src]"
    yield "    http-request set-header x-forwarded-proto https"
    if site.client_ca is not None:
        known = "if { ssl_c_used } { ssl_c_verify 0 }"
        yield f"    http-request set-header x-forwarded-client-cert {XFCC} {known}"
        yield f"    http-request set-header client-cert :%[ssl_c_der,base64]: {known}"
    yield "    http-response del-header server"
    yield "    # A refusal of the edge's own has none, and a gRPC client would not believe it."
    untyped = "{ var(txn.grpc) -m bool } !{ res.hdr(content-type) -m found }"
    yield f"    http-after-response set-header content-type application/grpc if {untyped}"


def _backends(site: Site) -> Iterator[str]:
    yield "backend serve_http"
    yield "    # A connection carries one request: nothing of one can be taken for another's,"
    yield "    # however early an answer came."
    yield "    option http-server-close"
    yield "    http-reuse never"
    yield "    # A short body is here before an answer can be, which some clients are confused by."
    yield "    option http-buffer-request"
    yield f"    server serve {site.http}"
    if site.grpc is not None:
        yield ""
        yield "backend serve_grpc"
        yield f"    server serve {site.grpc} proto h2"
