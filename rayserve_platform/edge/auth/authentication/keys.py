"""API keys: the platform's own, and those of labelled Kubernetes Secrets."""

import base64
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

from rayserve_platform.edge.auth.authentication.identity import Idle, Known
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.keystore import KeyStore
from rayserve_platform.edge.auth.kubernetes import KubernetesApi, Secrets, entries
from rayserve_platform.edge.auth.verdict import Rejected
from rayserve_platform.settings.auth.values import LabelSelector

ENTRY = "api_key"
"""The entry of a Secret that holds the key: Authorino's contract."""
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which kubectl keeps what it was given: of a Secret, the data."""


class OwnKeys(Idle):
    """Keys that `rayserve keys` made. The store is started by whoever made it."""

    needs_token = True
    is_local = True
    waits = False

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return whose key it is."""
        key = self._store.find(token)
        if key is None:
            raise Rejected("no such API key")
        identity = {**key.identity, "username": key.principal, "groups": list(key.groups)}
        return Known(identity=identity, key=key)


class SecretKeys:
    """Keys of Secrets with some labels. An identity is the Secret, without its data.

    In memory a key is kept as a digest under a secret of this process, and found by it: neither a
    dump of the memory nor the time of an answer tells one.
    """

    needs_token = True
    is_local = True
    waits = False

    def __init__(self, api: KubernetesApi, selector: LabelSelector, namespace: str | None) -> None:
        self._pepper = secrets.token_bytes(32)
        self._secrets = Secrets(api, selector, namespace, self._take)
        self._generation = -1
        self._known: dict[bytes, Known] = {}

    def _take(self, secret: Mapping[str, Any]) -> tuple[bytes, Known]:
        key = entries(secret).get(ENTRY, b"").strip()
        if not key:
            raise ValueError(f"it has no entry '{ENTRY}'")
        metadata = secret["metadata"]
        kept = ("name", "namespace", "uid", "labels")
        told = {name: metadata[name] for name in kept if name in metadata}
        if "annotations" in metadata:
            told["annotations"] = _harmless(metadata["annotations"] or {}, key)
        identity = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": secret.get("type", "Opaque"),
            "metadata": told,
        }
        return self._digest(key), Known(identity=identity)

    def _digest(self, key: bytes) -> bytes:
        return hmac.digest(self._pepper, key, "sha256")

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return the Secret that holds the key."""
        kept = self._secrets.kept
        if self._generation != self._secrets.generation:
            self._known = dict(kept.values())
            self._generation = self._secrets.generation
        known = self._known.get(self._digest(token.encode()))
        if known is None:
            raise Rejected("no such API key")
        return known

    async def start(self) -> None:
        """Read the Secrets and follow them."""
        await self._secrets.start()

    async def stop(self) -> None:
        """Stop following."""
        await self._secrets.stop()


def _harmless(annotations: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """Return the annotations without those that may tell the key."""
    forms = (key.decode("utf-8", "replace"), base64.b64encode(key).decode())
    return {
        name: value
        for name, value in annotations.items()
        if name != APPLIED and not any(form in str(value) for form in forms)
    }
