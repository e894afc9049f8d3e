"""Fetching what a request names, of hosts that are allowed, so that no engine has to.

A name is looked up once, and what is called is the address that was found fit: a name that leads
elsewhere a moment later (DNS rebinding) changes nothing. Redirects are not followed.
"""

import asyncio
import base64
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from rayserve_platform.core.errors import Code, PlatformError

log = logging.getLogger("rayserve.edge")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_FETCHES = 32
"""At a time in one ingress replica; more wait, within their time."""
MAX_LOOKUPS = 8
"""Names that are looked up at a time, each in a thread."""
NAT64 = ip_network("64:ff9b::/96")
"""RFC 6052: its last 32 bits are the IPv4 address that is meant."""
KIND = re.compile(r"(image|audio|video)/[a-z0-9.+-]{1,64}")
FRAMES = "video/jpeg"
"""For vLLM a list of pictures, which no server sends."""
UNKNOWN = "application/octet-stream"


def host_of(url: str) -> str | None:
    """Return the host of an HTTP URL that everybody reads alike, else None."""
    if not url.isascii() or not url.isprintable() or any(char in url for char in "\\ @"):
        return None
    try:
        parts, other = urlsplit(url), URL(url)
        if parts.port == 0 or (parts.hostname, other.scheme) != (other.host, parts.scheme):
            return None
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None


class Lookup:
    """Looks names up as this machine does, in threads of its own.

    A name server that is silent holds a thread for long after its request is gone; no other work
    may wait for it, and no more of it may pile up than there are threads.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="lookup")
        self._places = asyncio.Semaphore(MAX_LOOKUPS)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a name."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        work = self._threads.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        work.add_done_callback(lambda _: self._leave(loop))
        return [str(address[0]) for *_, address in await asyncio.wrap_future(work)]

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the ingress has ended
            loop.call_soon_threadsafe(self._places.release)


class Fetcher:
    """Fetches files over HTTP for one ingress.

    Args:
        networks: in which an address may be that is not a public one.
        max_bytes: of all files of one request together.
        timeout_s: for all files of one request together.
        resolve: looks up a name; a `Lookup` of its own if there is none.
    """

    def __init__(
        self,
        *,
        networks: Iterable[str] = (),
        max_bytes: int = 32 * 2**20,
        timeout_s: float = 10.0,
        resolve: Resolve | None = None,
    ) -> None:
        self._networks = tuple(ip_network(network) for network in networks)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve or Lookup()
        self._places = asyncio.Semaphore(MAX_FETCHES)

    async def data_urls(self, wanted: Sequence[tuple[str, str]]) -> list[str]:
        """Fetch the files of one request; return each as a `data:` URL.

        Args:
            wanted: for each its URL, of a host that is allowed, and the field that names it.

        Raises:
            PlatformError: INVALID_ARGUMENT naming the field of one that can't be had.
        """
        room = _Room(self._max_bytes)
        tasks = [asyncio.create_task(self._fetch(url, field, room)) for url, field in wanted]
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.gather(*tasks)
        except TimeoutError:
            fields = (field for task, (_, field) in zip(tasks, wanted, strict=True) if _ran(task))
            late = next(fields, wanted[0][1])  # the last may be there just as time is up
            text = f"was not there within {self._timeout_s:g} s"
            raise _refusal(late, text) from None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, written: str, field: str, room: "_Room") -> str:
        url = URL(written)
        host, port = url.host or "", url.port or 0
        async with self._places:
            addresses = await self._addresses(host, port, field)
            connector = aiohttp.TCPConnector(
                resolver=_Pinned(addresses), use_dns_cache=False, force_close=True
            )
            try:
                async with aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                    trust_env=False,
                ) as session:
                    kind, body = await _read(session, url, field, room)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                log.info("%s of %s: %s: %s", field, host, type(error).__name__, error)
                raise _refusal(field, "can't be fetched: its host does not answer") from None
        return await asyncio.to_thread(_data_url, kind, body)

    async def _addresses(self, host: str, port: int, field: str) -> list[Address]:
        """Look a name up, once; refuse it if any of its addresses is not for callers."""
        try:
            found = [_plain(ip_address(each)) for each in await self._resolve(host, port)]
        except (OSError, ValueError):
            found = []
        if not found:
            raise _refusal(field, "can't be fetched: its host has no address")
        for address in found:
            if not self._is_fit(_meant(address)):
                log.warning("%s was refused: %s leads to %s", field, host, address)
                raise _refusal(field, "leads to an address that this server does not call")
        return found

    def _is_fit(self, address: Address) -> bool:
        if any(address in network for network in self._networks):
            return True
        return _is_public(address)


class _Room:
    """What one request may still fetch."""

    def __init__(self, size: int) -> None:
        self._size = self.left = size

    def take(self, count: int, field: str) -> None:
        self.left -= count
        if self.left < 0:
            limit = f"{self._size / 2**20:g} MiB"
            raise _refusal(field, f"is too large: all files of a request have at most {limit}")


class _Pinned(AbstractResolver):
    """Knows the addresses that were found fit, and no others."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return them, whatever the name."""
        del family
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


async def _read(
    session: aiohttp.ClientSession, url: URL, field: str, room: _Room
) -> tuple[str, list[bytes]]:
    # What is packed would only show its size when it is unpacked.
    headers = {"accept-encoding": "identity", "user-agent": "rayserve_platform"}
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        if 300 <= response.status < 400:
            raise _refusal(field, "is redirected; name the address itself")
        if response.status != 200:
            raise _refusal(field, f"can't be fetched: its host answers {response.status}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise _refusal(field, "can't be fetched: its host sends it compressed")
        if response.content_length is not None and response.content_length > room.left:
            room.take(response.content_length, field)
        parts: list[bytes] = []
        async for part in response.content.iter_any():
            room.take(len(part), field)
            parts.append(part)
        kind = response.content_type.lower()
    return kind if KIND.fullmatch(kind) and kind != FRAMES else UNKNOWN, parts


def _data_url(kind: str, parts: list[bytes]) -> str:
    return f"data:{kind};base64,{base64.b64encode(b''.join(parts)).decode()}"


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address is another spelling of, if it is for one."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _meant(address: Address) -> Address:
    """Return whom a call reaches in the end.

    It is what counts, but not what is called: a network that needs NAT64 has no IPv4 of its own.
    """
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else address


def _is_public(address: Address) -> bool:
    """Say whether an address is one machine's in the internet; `is_global` alone has gaps."""
    special = (
        address.is_multicast
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_reserved
        or address.is_unspecified
    )
    if isinstance(address, IPv6Address):
        # 6to4 (RFC 7526) is of the past, and holds another address.
        special = special or address.is_site_local or address.sixtofour is not None
    return address.is_global and not special


def _ran(task: asyncio.Task[str]) -> bool:
    return not task.done() or task.cancelled()


def _refusal(field: str, text: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, f"'{field}' {text}.", param=field)
