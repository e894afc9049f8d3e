"""The Kubernetes API: reviews of tokens and of access, and Secrets that are kept up with."""

import asyncio
import base64
import binascii
import logging
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson

from rayserve_platform.edge.auth.authority import Authorities
from rayserve_platform.edge.auth.verdict import Unavailable
from rayserve_platform.settings.auth.app import Kubernetes
from rayserve_platform.settings.auth.values import LabelSelector

log = logging.getLogger("rayserve.auth")

REVIEW_TOKEN = "/apis/authentication.k8s.io/v1/tokenreviews"
REVIEW_ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
WATCH_S = 30
"""A watch is ended by the server after this time, and begun anew: so a connection of which only
this end is left is found out, and a revocation held up no longer."""
WATCH_GRACE_S = 5
RETRY_S = 1.0
"""Between two attempts at a list: keys are believed again within this time of a server's return."""
MAX_LINE_BYTES = 2**22
"""Of a watch: an object has at most 1.5 MiB in etcd, and base64 on top."""


class KubernetesApi:
    """A client with the replica's own service account."""

    def __init__(self, settings: Kubernetes, authorities: Authorities) -> None:
        self._settings = settings
        self._authorities = authorities
        self._url = settings.url or _in_pod()
        self._tls: ssl.SSLContext | None = None

    @property
    def namespace(self) -> str:
        """The replica's own namespace."""
        try:
            return Path(self._settings.namespace_file).read_text(encoding="utf-8").strip()
        except OSError:
            return "default"

    async def review(
        self, path: str, kind: str, spec: Any, timeout_ms: int | None, source: str = ""
    ) -> Any:
        """Return the `status` of a review, of a token that came from an address, or of access.

        Raises:
            Unavailable: as `Authorities.ask`; also when what comes back is no review.
        """
        group = path.removeprefix("/apis/").rpartition("/")[0]
        body = {"apiVersion": group, "kind": kind, "spec": spec}
        answer = await self._authorities.ask(
            "POST",
            self.base + path,
            headers={**self.headers(), "content-type": "application/json"},
            data=orjson.dumps(body),
            timeout_ms=timeout_ms,
            tls=self.tls(),
            expected=(200, 201),
            about=kind,
            source=source,
        )
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, dict) or answer.get("kind") != kind:
            raise Unavailable(f"the Kubernetes API did not answer with a {kind}")
        return status

    async def secret(self, namespace: str, name: str) -> dict[str, bytes]:
        """Return the entries of one Secret; raises as `Authorities.ask`."""
        path = f"/api/v1/namespaces/{quote(namespace)}/secrets/{quote(name)}"
        found = await self._authorities.ask(
            "GET", self.base + path, headers=self.headers(), tls=self.tls()
        )
        return entries(found)

    @property
    def base(self) -> str:
        """The server's URL.

        Raises:
            Unavailable: when nothing tells where it is.
        """
        if self._url is None:
            raise Unavailable("no Kubernetes API: not in a pod, and auth.kubernetes.url is not set")
        return self._url.rstrip("/")

    def headers(self) -> dict[str, str]:
        """Return what the API is called with; the token is read each time, since it is renewed."""
        try:
            token = Path(self._settings.token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return {}
        return {"authorization": f"Bearer {token}"} if token else {}

    def tls(self) -> ssl.SSLContext | None:
        """Return whom the server is believed from; made once."""
        file = self._settings.ca_file
        if self._tls is None and file and Path(file).is_file():
            self._tls = ssl.create_default_context(cafile=file)
        return self._tls

    def open(self, url: str) -> Any:
        """Open a stream of a watch."""
        options: dict[str, Any] = {"ssl": self._tls} if self.tls() else {}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=WATCH_S + WATCH_GRACE_S)
        return self._authorities.session.get(
            url, headers=self.headers(), timeout=limit, allow_redirects=False, **options
        )

    async def get(self, url: str) -> Any:
        """Return a JSON document of the API; raises as `Authorities.ask`."""
        return await self._authorities.ask("GET", url, headers=self.headers(), tls=self.tls())


class Secrets:
    """The Secrets with some labels, kept up with by list and watch.

    Args:
        api: the Kubernetes API.
        namespace: where; None: everywhere.
        take: is given one Secret when it appears or changes, and returns what is kept of it. What
            it can't use it refuses with ValueError; then nothing is kept.
    """

    def __init__(
        self,
        api: KubernetesApi,
        selector: LabelSelector,
        namespace: str | None,
        take: Callable[[Mapping[str, Any]], Any],
    ) -> None:
        self._api = api
        self._query = {"labelSelector": written(selector)}
        self._path = (
            f"/api/v1/namespaces/{quote(namespace)}/secrets" if namespace else "/api/v1/secrets"
        )
        self._take = take
        self._watching: asyncio.Task[None] | None = None
        self._kept: dict[str, Any] | None = None
        self.generation = 0

    @property
    def kept(self) -> dict[str, Any]:
        """What is kept, by the Secrets' uids.

        Raises:
            Unavailable: while no list has been read yet.
        """
        if self._kept is None:
            raise Unavailable("the Secrets have not been read yet")
        return self._kept

    async def start(self) -> None:
        """Keep up from now on; a first list is waited for, once."""
        if self._watching is None:
            version = await self._list_or_none()
            self._watching = asyncio.create_task(self._keep_up(version))

    async def stop(self) -> None:
        """End the watch."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _keep_up(self, version: str | None) -> None:
        while True:
            while version is None:
                await asyncio.sleep(RETRY_S)
                version = await self._list_or_none()
            try:
                version = await self._watch(version)
            except Exception as error:  # noqa: BLE001  # whatever a server says, keys are followed
                log.warning("the watch of Secrets ended: %s: %s", type(error).__name__, error)
                version = None

    async def _list_or_none(self) -> str | None:
        """Read all; what was kept stays where that fails."""
        try:
            listed = await self._api.get(f"{self._api.base}{self._path}?{urlencode(self._query)}")
            items, version = listed["items"], str(listed["metadata"]["resourceVersion"])
            kept: dict[str, Any] = {}
            for secret in items:
                self._put(kept, secret)
        except (Unavailable, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("the Secrets can't be read, the last ones stay: %s", error)
            return None
        self._kept = kept
        self.generation += 1
        return version

    async def _watch(self, version: str) -> str | None:
        """Follow changes; returns where to go on, or None where all must be read again."""
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        async with self._api.open(f"{self._api.base}{self._path}?{urlencode(query)}") as response:
            if response.status != 200:
                raise Unavailable(f"the watch was answered {response.status}")
            async for line in _lines(response.content):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    return None
                secret = event["object"]
                version = str(secret["metadata"]["resourceVersion"])
                if event["type"] != "BOOKMARK":
                    self._changed(event["type"], secret)
        return version

    def _changed(self, kind: str, secret: Mapping[str, Any]) -> None:
        kept = dict(self.kept)
        kept.pop(str(secret["metadata"]["uid"]), None)
        if kind != "DELETED":
            self._put(kept, secret)
        self._kept = kept
        self.generation += 1

    def _put(self, kept: dict[str, Any], secret: Mapping[str, Any]) -> None:
        metadata = secret["metadata"]
        try:
            kept[str(metadata["uid"])] = self._take(secret)
        except ValueError as error:
            log.warning("Secret %s is not used: %s", metadata.get("name"), error)


async def _lines(content: aiohttp.StreamReader) -> Any:
    """Yield the lines of a stream, however long."""
    rest = b""
    async for part in content.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise Unavailable("a line of the watch is too long")
        for line in lines:
            if line:
                yield line


def entries(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the decoded entries of a Secret.

    Raises:
        ValueError: when they are not base64.
    """
    data = secret.get("data") or {}
    try:
        return {str(key): base64.b64decode(value, validate=True) for key, value in data.items()}
    except (binascii.Error, TypeError, AttributeError):
        raise ValueError("its data is not base64") from None


def written(selector: LabelSelector) -> str:
    """Return a selector as the API's query has it."""
    terms = [f"{key}={value}" for key, value in selector.matchLabels.items()]
    for one in selector.matchExpressions:
        values = ",".join(one.values)
        terms.append(
            {
                "In": f"{one.key} in ({values})",
                "NotIn": f"{one.key} notin ({values})",
                "Exists": one.key,
                "DoesNotExist": f"!{one.key}",
            }[one.operator]
        )
    return ",".join(terms)


def _in_pod() -> str | None:
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT"),
    )
    if not host or not port:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
