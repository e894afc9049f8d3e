"""A Secret of keys as a source: read through the Kubernetes API, and watched there for changes."""

import asyncio
import logging
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from rayserve_platform.edge.auth.authority import Authorities
from rayserve_platform.edge.auth.kubernetes import WATCH_S, KubernetesApi, entries
from rayserve_platform.edge.auth.verdict import Unavailable
from rayserve_platform.edge.keys.change import KeyFault
from rayserve_platform.edge.keys.document import pepper_of_environment, read_pepper
from rayserve_platform.settings.auth.app import Kubernetes
from rayserve_platform.settings.keys import KEYS_ENTRY, PEPPER_ENTRY, pepper_secret

ANSWER_S = 5.0
PAUSE_S = 1.0
"""After a watch that could not be opened; then the keys are read again, whatever happened."""

log = logging.getLogger("rayserve.keys")


class FollowedSecret:
    """Keys in a Secret, their pepper in the environment or in another.

    The replica's service account needs `get` and `watch` for the first, by its name, and `get` for
    the other.

    Args:
        name: `[namespace/]name`; without a namespace it is the replica's own.
    """

    def __init__(self, settings: Kubernetes, name: str) -> None:
        self._authorities = Authorities(timeout_s=ANSWER_S)
        self._api = KubernetesApi(settings, self._authorities)
        namespace, _, self._name = name.rpartition("/")
        self._namespace = namespace
        self._version: str | None = None

    async def read(self) -> tuple[bytes, bytes]:
        """Return keys and pepper; raises `KeyFault`."""
        secret = await self._get(self._name)
        # Before anything else can fail: what was seen is not waited for again.
        self._version = str(secret["metadata"]["resourceVersion"])
        keys = self._entry(secret, KEYS_ENTRY)
        pepper = pepper_of_environment()
        if pepper is None:
            pepper = read_pepper(
                self._entry(await self._get(pepper_secret(self._name)), PEPPER_ENTRY)
            )
        return keys, pepper

    async def changed(self) -> None:
        """Wait for the first event of the Secret since it was read, or for the end of the watch."""
        if self._version is None:
            await asyncio.sleep(PAUSE_S)
            return
        try:
            async with self._api.open(self._watch_url(self._version)) as response:
                if response.status == 200 and await response.content.readany():
                    return
                log.info("the watch of the API keys ended (%d)", response.status)
        except (aiohttp.ClientError, OSError, TimeoutError, Unavailable) as error:
            log.warning("the API keys can't be watched: %s", type(error).__name__)
        await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._authorities.stop()

    async def _get(self, name: str) -> Any:
        try:
            found = await self._api.get(f"{self._secrets_url}/{quote(name)}")
        except Unavailable as error:
            raise KeyFault(f"Secret {name}: {error}") from None
        if not isinstance(found, dict) or found.get("kind") != "Secret":
            raise KeyFault(f"Secret {name}: the Kubernetes API did not answer with a Secret")
        return found

    def _entry(self, secret: Any, name: str) -> bytes:
        try:
            return entries(secret)[name]
        except (KeyError, ValueError):
            known = secret["metadata"].get("name")
            raise KeyFault(f"Secret {known}: has no {name}, or not in base64") from None

    def _watch_url(self, version: str) -> str:
        query = {
            "fieldSelector": f"metadata.name={self._name}",
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_S),
        }
        return f"{self._secrets_url}?{urlencode(query)}"

    @property
    def _secrets_url(self) -> str:
        namespace = self._namespace or self._api.namespace
        return f"{self._api.base}/api/v1/namespaces/{quote(namespace)}/secrets"
