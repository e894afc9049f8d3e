"""Files that a request names, of hosts that are allowed: the ingress fetches them."""

import asyncio
import base64
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import PlatformError
from rayserve_platform.edge.accounts import open_accounts
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.media import MAX_LOOKUPS, Fetcher
from rayserve_platform.protocols.openai.guard import Caps
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.settings.app import Ingress
from tests.conftest import CancelledByClient, listening

CHAT = "/v1/chat/completions"
HOST = "media.example.org"
PICTURE = b"\x89PNG" + bytes(range(256))


@dataclass
class Store:
    """A server of files, which keeps the paths and hosts that it was asked for."""

    url: str = ""
    files: dict[str, tuple[int, list[tuple[bytes, bytes]], list[bytes]]] = field(
        default_factory=dict
    )
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, path: str, *parts: bytes, status: int = 200, **headers: str) -> str:
        named = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        self.files[path] = (status, named, list(parts))
        return f"http://{HOST}:{self.url.rpartition(':')[2]}{path}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.asked.append((scope["path"], dict(scope["headers"])[b"host"]))
        status, headers, parts = self.files[scope["path"]]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        while scope["path"] == "/slow" and (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Names:
    """Looks names up: the answers one after another, the last again and again."""

    answers: list[list[str]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise OSError("no such name")
        return found


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    served = Store()
    async with listening(served) as url:
        served.url = url
        yield served


@pytest.fixture
async def serve(make_native) -> AsyncIterator[Callable[..., Any]]:
    """Serves a native runtime that accepts files of one host, which `names` says the addresses of.

    This machine's own are allowed unless `networks` says otherwise.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            names: Names, *, most: int = 16, quotas: dict[str, Any] | None = None, **bounds: Any
        ) -> Any:
            runtime = make_native(f"POST {CHAT}")
            options = {"networks": ["127.0.0.0/8"], "max_bytes": 4096, **bounds}
            caps = Caps(media_hosts=frozenset({HOST}), max_media=most)
            fetcher = Fetcher(resolve=names, **options)
            face = OpenAIHttp(Catalog([runtime]), caps=caps, fetcher=fetcher)
            settings = Ingress.model_validate({"quotas": quotas or {}, "audit": {"enabled": False}})
            edge = HttpEdge([face], settings, accounts=open_accounts(settings))
            url = await stack.enter_async_context(listening(CancelledByClient(edge)))
            client = httpx.AsyncClient(base_url=url, timeout=60, verify=False, trust_env=False)
            return await stack.enter_async_context(client), runtime

        yield start


def message(*urls: str, kind: str = "image_url") -> dict[str, Any]:
    parts = [{"type": kind, kind: {"url": url}} for url in urls]
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, *parts]}]}


def urls_of(runtime: Any, kind: str = "image_url") -> list[str]:
    (call,) = runtime.calls
    return [part[kind]["url"] for part in call.json["messages"][0]["content"][1:]]


def inline(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("kind", "sent", "told"),
    [
        ("image_url", "image/png", "image/png"),
        ("image_url", "IMAGE/PNG; charset=binary", "image/png"),
        ("video_url", "video/mp4", "video/mp4"),
        ("video_url", "video/jpeg", "application/octet-stream"),
        ("audio_url", "audio/x-wav", "audio/x-wav"),
        ("image_url", "text/html", "application/octet-stream"),
        ("image_url", "image/png,base64", "application/octet-stream"),
    ],
)
async def test_the_engine_gets_the_file_and_not_its_address(
    serve: Any, store: Store, kind: str, sent: str, told: str
) -> None:
    client, runtime = await serve(Names([["127.0.0.1"]]))
    url = store.add("/a.png", PICTURE[:100], PICTURE[100:], content_type=sent)
    body = message(url, inline("image/gif", b"own"), kind=kind)
    answer = await client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    assert urls_of(runtime, kind) == [inline(told, PICTURE), inline("image/gif", b"own")]
    ((path, host),) = store.asked
    assert path == "/a.png"
    assert host.decode().startswith(HOST)


async def test_a_name_is_looked_up_once(serve: Any, store: Store) -> None:
    """It would lead elsewhere by the time of the connection; the first address is called."""
    names = Names([["127.0.0.1"], ["127.0.0.9"]])
    client, runtime = await serve(names, networks=["127.0.0.1/32"])
    url = store.add("/a.png", PICTURE)
    assert (await client.post(CHAT, json=message(url))).status_code == 200
    assert names.asked == [HOST]
    assert len(urls_of(runtime)) == 1
    again = await client.post(CHAT, json=message(url))
    assert again.status_code == 400
    assert len(store.asked) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fd00::1",
        "fe80::1%lo",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
async def test_an_address_that_is_not_public_is_not_called(
    serve: Any, store: Store, address: str
) -> None:
    client, runtime = await serve(Names([["93.184.215.14", address]]), networks=[])
    answer = await client.post(CHAT, json=message(store.add("/a.png", PICTURE)))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "image_url"
    assert "address that this server does not call" in error["message"]
    assert address not in answer.text
    assert runtime.calls == store.asked == []


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "64:ff9b::808:808"])
async def test_a_public_address_is_called_as_it_was_found(serve: Any, address: str) -> None:
    """Also one of NAT64, whose IPv4 address can't be reached where there is a need for it."""
    fetcher = Fetcher(resolve=Names([[address]]))
    (found,) = await fetcher._addresses(HOST, 80, "image_url")
    assert str(found) == address


async def test_a_redirect_is_not_followed(serve: Any, store: Store) -> None:
    client, runtime = await serve(Names([["127.0.0.1"]]))
    target = store.add("/b.png", PICTURE)
    url = store.add("/a.png", status=302, location=target)
    answer = await client.post(CHAT, json=message(url))
    assert answer.status_code == 400
    assert "'image_url' is redirected" in answer.json()["error"]["message"]
    assert [path for path, _ in store.asked] == ["/a.png"]
    assert runtime.calls == []


@pytest.mark.parametrize(
    ("parts", "headers", "words"),
    [
        ([b"a" * 3000, b"a" * 3000], {}, "too large: all files of a request have at most"),
        ([], {"content_length": "5000"}, "too large: all files of a request have at most"),
        ([b"a"], {"content_encoding": "gzip"}, "its host sends it compressed"),
        ([b"a"], {"status": 404}, "its host answers 404"),
        ([b"a"], {"status": 500}, "its host answers 500"),
    ],
)
async def test_what_can_not_be_had_is_told(
    serve: Any, store: Store, parts: list[bytes], headers: dict[str, Any], words: str
) -> None:
    client, runtime = await serve(Names([["127.0.0.1"]]))
    answer = await client.post(CHAT, json=message(store.add("/a.png", *parts, **headers)))
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert runtime.calls == []


async def test_the_files_of_a_request_are_bounded_together(serve: Any, store: Store) -> None:
    client, runtime = await serve(Names([["127.0.0.1"]]), most=2)
    url = store.add("/a.png", b"a" * 3000)
    several = await client.post(CHAT, json=message(url, url))
    assert "too large" in several.json()["error"]["message"]
    many = await client.post(CHAT, json=message(url, url, url))
    assert "may name 2 files to be fetched; it has 3" in many.json()["error"]["message"]
    assert len(store.asked) == 2
    assert runtime.calls == []
    assert (await client.post(CHAT, json=message(url))).status_code == 200


async def test_a_host_that_takes_its_time_is_not_waited_for(serve: Any, store: Store) -> None:
    client, runtime = await serve(Names([["127.0.0.1"]]), timeout_s=0.2)
    answer = await client.post(CHAT, json=message(store.add("/slow", b"a")))
    assert answer.status_code == 400
    assert "'image_url' was not there within 0.2 s" in answer.json()["error"]["message"]
    assert runtime.calls == []


def hold_up() -> None:
    time.sleep(0.05)


async def test_files_that_are_there_just_as_time_is_up_are_late() -> None:
    class Busy(Fetcher):
        async def _fetch(self, written: str, field: str, room: Any) -> str:
            hold_up()  # until the time is up, and then all is there at once
            return written

    with pytest.raises(PlatformError, match="'image_url' was not there within"):
        await Busy(timeout_s=0.01).data_urls([("http://a", "image_url")])


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], threading.Event]]:
    """A name server that does not answer before it is told to, and what it was asked."""
    asked: list[str] = []
    told = threading.Event()

    def wait(host: str, port: int, *_: Any, **__: Any) -> Any:
        asked.append(host)
        told.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield asked, told
    told.set()


async def test_a_silent_name_server_holds_up_nothing_else(silent: Any) -> None:
    asked, told = silent
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    fetcher = Fetcher(timeout_s=0.2)
    wanted = [(f"http://{HOST}/a.png", "image_url")] * 2 * MAX_LOOKUPS
    for _ in range(2):
        with pytest.raises(PlatformError, match="was not there within"):
            await fetcher.data_urls(wanted)
    assert await asyncio.wait_for(asyncio.to_thread(int), 20) == 0
    assert len(asked) == MAX_LOOKUPS
    told.set()
    assert await fetcher._resolve(HOST, 80) == ["127.0.0.1"]


async def test_a_host_that_is_not_there_is_told(serve: Any) -> None:
    client, runtime = await serve(Names([[], ["127.0.0.1"]]))
    unknown = await client.post(CHAT, json=message(f"http://{HOST}/a.png"))
    assert "its host has no address" in unknown.json()["error"]["message"]
    closed = await client.post(CHAT, json=message(f"http://{HOST}:1/a.png"))
    assert closed.status_code == 400
    assert "its host does not answer" in closed.json()["error"]["message"]
    assert "127.0.0.1" not in closed.text
    assert runtime.calls == []


async def test_nothing_is_fetched_for_a_model_that_is_not_served(serve: Any, store: Store) -> None:
    client, runtime = await serve(Names([["127.0.0.1"]]))
    body = message(store.add("/a.png", PICTURE)) | {"model": "another"}
    assert (await client.post(CHAT, json=body)).status_code == 404
    assert store.asked == runtime.calls == []


async def test_nothing_is_fetched_beyond_a_quota(serve: Any, store: Store) -> None:
    """Fetching is work for others: a request is counted before it, and once."""
    rules = [{"name": "all", "requests": ["2/hour"]}]
    client, runtime = await serve(Names([["127.0.0.1"]]), quotas={"rules": rules})
    body = message(store.add("/a.png", PICTURE))
    statuses = [(await client.post(CHAT, json=body)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert len(store.asked) == len(runtime.calls) == 2


async def test_the_settings_say_what_is_fetched(
    serve_http: Any, make_native: Any, store: Store
) -> None:
    openai = {"media_hosts": ["localhost"], "media_networks": ["127.0.0.0/8", "::1/128"]}
    server = await serve_http(make_native(f"POST {CHAT}"), ingress={"openai": openai})
    url = store.add("/a.png", PICTURE, content_type="image/png").replace(HOST, "localhost")
    assert (await server.client.post(CHAT, json=message(url))).status_code == 200
    assert urls_of(server.runtime) == [inline("image/png", PICTURE)]
    unset = {"openai": {"media_hosts": ["localhost"]}}
    closed = await serve_http(make_native(f"POST {CHAT}"), ingress=unset)
    assert (await closed.client.post(CHAT, json=message(url))).status_code == 400
    with pytest.raises(ValueError, match="media_networks"):
        Ingress.model_validate({"openai": {"media_networks": ["10.0.0.1/8"]}})
