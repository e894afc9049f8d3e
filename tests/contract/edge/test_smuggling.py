"""Bytes that two servers may read as two requests, sent to the edge over TLS.

Classes: PortSwigger's "HTTP desync attacks", and RFC 9112, sections 5 to 7 and 11.2. What stands
behind the edge must see no request that the edge has not seen: each bears the edge's mark.
"""

import asyncio

HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /v1/seen HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = b"0\r\n\r\n" + HIDDEN
LENGTH = b"content-length: %d\r\n"

DESYNC = {
    "both lengths, chunked hides": POST
    + LENGTH % len(CHUNKED)
    + b"transfer-encoding: chunked\r\n\r\n"
    + CHUNKED,
    "both lengths, length hides": POST
    + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % len(HIDDEN)
    + HIDDEN
    + b"\r\n0\r\n\r\n",
    "two lengths": POST + LENGTH % 0 + LENGTH % len(HIDDEN) + b"\r\n" + HIDDEN,
    "two lengths in one": POST + b"content-length: 0, %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a length with a sign": POST + b"content-length: +%d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a hexadecimal length": POST + b"content-length: 0x%x\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "an encoding that is not chunked": POST
    + LENGTH % len(CHUNKED)
    + b"transfer-encoding: xchunked\r\n\r\n"
    + CHUNKED,
    "chunked is not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n" + CHUNKED,
    "two encodings": POST
    + LENGTH % len(CHUNKED)
    + b"transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n"
    + CHUNKED,
    "space before the colon": POST
    + LENGTH % len(CHUNKED)
    + b"transfer-encoding : chunked\r\n\r\n"
    + CHUNKED,
    "tab in the encoding": POST
    + LENGTH % len(CHUNKED)
    + b"transfer-encoding:\x0bchunked\r\n\r\n"
    + CHUNKED,
    "a folded header": POST
    + LENGTH % len(CHUNKED)
    + b"x-a: b\r\n transfer-encoding: chunked\r\n\r\n"
    + CHUNKED,
    "a bare line feed": POST + b"x-a: b\ntransfer-encoding: chunked\r\n\r\n" + CHUNKED,
    "a chunk's size too large": POST
    + b"transfer-encoding: chunked\r\n\r\n1000000000000000%x\r\n" % len(HIDDEN)
    + HIDDEN,
    "a chunk's size with a sign": POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + HIDDEN,
    "a chunk without its end": POST
    + b"transfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n"
    + HIDDEN,
    "a null in a header": POST + b"x-a: \x00\r\n" + LENGTH % 0 + b"\r\n",
    "no host": b"POST /v1/seen HTTP/1.1\r\n" + LENGTH % 0 + b"\r\n",
    "two hosts": POST + b"host: other\r\n" + LENGTH % 0 + b"\r\n",
    "two credentials": POST
    + b"authorization: Bearer a\r\nauthorization: Bearer b\r\n"
    + LENGTH % 0
    + b"\r\n",
    "two types": POST
    + b"content-type: application/json\r\ncontent-type: application/grpc\r\n"
    + LENGTH % 0
    + b"\r\n",
    "no method": b" /v1/seen HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT localhost:443 HTTP/1.1\r\nhost: localhost:443\r\n\r\n",
    "an echo": b"TRACE /v1/seen HTTP/1.1\r\nhost: localhost\r\n\r\n",
}
READ_AS_ONE = {
    "haproxy": {
        # The length is dropped, as RFC 9112, section 6.3 says, and the body goes on in chunks.
        "both lengths, chunked hides",
        "both lengths, length hides",
        # The lines are joined before anything else (section 5.2).
        "a folded header",
        "a bare line feed",
    },
    # The second is the ingress's to refuse.
    "nginx": {"a bare line feed", "two types"},
}
"""What a server puts right instead of refusing it: what it hands on has one meaning."""


async def test_nothing_gets_past_the_edge_unseen(front, behind, server):
    edge = await front(behind.address, header_s=1, idle_s=1)
    answers = await asyncio.gather(*(edge.raw(sent) for sent in DESYNC.values()))
    accepted = {
        case
        for case, answer in zip(DESYNC, answers, strict=True)
        if answer and not answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 501"))
    }
    assert accepted == READ_AS_ONE[server]
    assert behind.requests
    for request in behind.requests:
        headers = dict(request["headers"])
        assert headers["x-forwarded-proto"] == "https"
        assert not {"content-length", "transfer-encoding"} <= set(headers)


async def test_a_body_with_a_request_in_it_is_a_body(front, behind):
    edge = await front(behind.address)
    answer = await edge.client.post("/v1/seen", content=HIDDEN)
    assert answer.status_code == 200
    assert [request["path"] for request in behind.requests] == ["/v1/seen"]
