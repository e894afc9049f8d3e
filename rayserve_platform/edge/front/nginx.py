"""A configuration for nginx 1.22 (Debian 12) and newer.

nginx can't take off headers by the beginnings of their names: of the platform's own it takes off
those whose whole name is known, and leaves `x-rayserve-…`, `x-maas-…` and `x-ext-auth-…` to the
ingress. Of names with `_` it passes none on.
"""

from collections.abc import Iterator

from rayserve_platform.edge.front.haproxy import CIPHERS
from rayserve_platform.edge.front.site import NOT_FOUND, TEXTS, TOO_LARGE, Site
from rayserve_platform.edge.front.site import body as error_body
from rayserve_platform.edge.headers import CERTIFICATE, ORDERS, PREFIXES
from rayserve_platform.edge.shape import ODD_ESCAPE

WHOLE = tuple(name for name in PREFIXES if not name.endswith("-"))
TAKEN_OFF = (*WHOLE, *ORDERS, "forwarded", "x-forwarded-host", "x-forwarded-port", "x-real-ip")
HANDED_ON = {
    "x-forwarded-client-cert": '"$rayserve_xfcc"',
    "client-cert": '"$ssl_client_escaped_cert"',
}
OWN = "/-edge/"
"""Where nginx finds what it says itself. No named location, which a request that could not be read
never gets to."""
SLASH = "(/|%2[fF])"
DOTS = rf"{SLASH}(\.|%2[eE]){{1,2}}({SLASH}|$|\?)"
ODD_URI = rf"^[^?]*({SLASH}{{2}}|{DOTS}|;|%3[bB]|\x5c|%5[cC]|%[01]|%7[fF])"
"""In a path as it was sent, escaped or not: see `edge.shape`."""
GRPC_STATUS = {400: 3, 404: 12, 408: 4, 413: 8, 429: 8, 500: 13, 502: 14, 503: 14, 504: 4}


def render(site: Site) -> str:
    """Return the configuration's text."""
    lines = [*_main(site), "http {", *_http(), "    server {", *_server(site), "    }", "}"]
    return "\n".join(lines) + "\n"


def _main(site: Site) -> Iterator[str]:
    yield "# Made by `rayserve edge render --server nginx`."
    if site.user:
        yield f"user {site.user};"
    yield "worker_processes auto;"
    yield "error_log stderr warn;"
    yield f"events {{ worker_connections {site.max_connections}; }}"


def _http() -> Iterator[str]:
    yield "    server_tokens off;"
    yield "    # Without the query: it may hold a credential."
    yield "    map $request_uri $rayserve_path { ~^(?<path>[^?]*) $path; }"
    yield (
        '    log_format edge escape=json \'{"time":"$time_iso8601","client":"$remote_addr",'
        '"method":"$request_method","path":"$rayserve_path","status":$status,'
        '"total_s":$request_time}\';'
    )
    yield "    access_log /dev/stderr edge;"
    yield '    map "$server_protocol $http_content_type" $rayserve_grpc {'
    yield '        default "";'
    yield r'        "~*^HTTP/2\.0 application/grpc(\+[a-z]+)?\s*(;|$)" grpc;'
    yield "    }"
    yield "    map $ssl_client_verify $rayserve_xfcc {"
    yield '        default "";'
    yield "        SUCCESS 'Cert=\"$ssl_client_escaped_cert\"';"
    yield "    }"


def _server(site: Site) -> Iterator[str]:
    yield f"        listen {site.listen} ssl http2;"
    yield f"        ssl_certificate {site.certificate};"
    yield f"        ssl_certificate_key {site.key or site.certificate};"
    if site.client_ca:
        yield f"        ssl_client_certificate {site.client_ca};"
        yield "        ssl_verify_client optional;"
    yield "        ssl_protocols TLSv1.2 TLSv1.3;"
    yield f"        ssl_ciphers {CIPHERS};"
    yield "        ssl_session_tickets off;"
    yield from _limits(site)
    yield from _errors(site)
    yield from _upstream(site)
    yield from _locations(site)


def _limits(site: Site) -> Iterator[str]:
    yield f"        client_max_body_size {site.max_body_bytes};"
    yield f"        client_header_timeout {site.header_s}s;"
    yield f"        client_body_timeout {site.idle_s}s;"
    yield f"        send_timeout {site.idle_s}s;"
    yield f"        keepalive_timeout {min(60, site.idle_s)}s;"
    yield "        large_client_header_buffers 4 16k;"
    yield f"        http2_max_concurrent_streams {site.max_streams};"
    yield "        underscores_in_headers off;"
    yield "        ignore_invalid_headers on;"
    yield "        merge_slashes off;"


def _errors(site: Site) -> Iterator[str]:
    """Yield what nginx says itself; in gRPC's shape where the question was."""
    limit = TOO_LARGE.format(limit=site.max_body_bytes / 2**20)
    for status, text in {**TEXTS, 404: NOT_FOUND, 413: limit}.items():
        yield f"        error_page {status} = {OWN}{status}$rayserve_grpc;"
        yield f"        location = {OWN}{status} {{"
        yield "            internal;"
        yield "            default_type application/json;"
        yield f"            return {status} '{error_body(status, text)}';"
        yield "        }"
        yield f"        location = {OWN}{status}grpc {{"
        yield "            internal;"
        yield "            default_type application/grpc;"
        yield f"            add_header grpc-status {GRPC_STATUS[status]};"
        yield f'            add_header grpc-message "{text}";'
        yield '            return 200 "";'
        yield "        }"


def _upstream(site: Site) -> Iterator[str]:
    """Yield how requests are handed on: unbuffered, since answers are streams."""
    yield "        proxy_http_version 1.1;"
    yield "        proxy_buffering off;"
    yield "        proxy_request_buffering off;"
    for server in ("proxy", "grpc"):
        yield f"        {server}_connect_timeout 5s;"
        yield f"        {server}_read_timeout {site.answer_s}s;"
        yield f"        {server}_send_timeout {site.idle_s}s;"
        yield f"        {server}_next_upstream off;"
        yield f"        {server}_set_header x-forwarded-for $remote_addr;"
        yield f"        {server}_set_header x-forwarded-proto https;"
        for name in TAKEN_OFF:
            handed = HANDED_ON.get(name) if site.client_ca and name in CERTIFICATE else None
            yield f"        {server}_set_header {name} {handed or chr(34) * 2};"
    yield "        proxy_set_header host $http_host;"
    yield '        proxy_set_header connection "";'
    if site.one_app:
        yield '        grpc_set_header application "";'


def _locations(site: Site) -> Iterator[str]:
    yield "        location / {"
    yield f'            if ($request_uri ~ "{ODD_URI}") {{ return 400; }}'
    yield f'            if ($request_uri ~ "^[^?]*({ODD_ESCAPE})") {{ return 400; }}'
    yield "            if ($request_method ~ ^(CONNECT|TRACE)$) { return 400; }"
    yield "            # What Serve's own proxy answers by itself, whoever asks; $uri is decoded."
    yield r'            if ($uri ~* "^/(-(/|$)|ray\.)") { return 404; }'
    rpcs = f"grpc_pass grpc://{site.grpc}" if site.grpc else "return 404"
    yield f"            if ($rayserve_grpc) {{ {rpcs}; }}"
    yield f"            proxy_pass http://{site.http};"
    yield "        }"
