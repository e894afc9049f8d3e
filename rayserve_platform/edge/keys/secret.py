"""Keys in a Kubernetes Secret, their pepper in another one.

Two Secrets, so that who may read the digests need not be able to read the pepper. Two writers are
told apart by the API server: it refuses a change to what has been changed since it was read.
"""

import base64
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx

from rayserve_platform.edge.keys.change import KeyFault
from rayserve_platform.edge.keys.cluster import Cluster
from rayserve_platform.edge.keys.document import (
    new_pepper,
    pepper_of_environment,
    read_keys,
    read_pepper,
    write_keys,
)
from rayserve_platform.edge.keys.file import Verb
from rayserve_platform.settings.keys import KEYS_ENTRY, PEPPER_ENTRY, KeyFile, pepper_secret

Result = TypeVar("Result")
Object = dict[str, Any]

TIMEOUT_S = 10.0
ATTEMPTS = 10
MAX_BYTES = 700_000
"""What a server reads of an API's answer at most, which has it in base64."""


class KeysInSecret:
    """A Secret of keys and the Secret of its pepper."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._path = f"/api/v1/namespaces/{namespace}/secrets"
        self._where = f"Secret {namespace}/{name}"
        self._namespace = namespace
        self._name = name
        self._cluster = cluster

    def __str__(self) -> str:
        return self._where

    def read(self) -> KeyFile:
        """Return the keys; none where there is no Secret yet.

        Raises:
            KeyFault: when it can't be read.
        """
        return self._keys_of(self._get(self._name))

    def update(self, verb: Verb[Result]) -> Result:
        """Do something to the keys; again, if somebody else was faster.

        Raises:
            KeyFault: when the Secrets can't be read or written.
        """
        for _ in range(ATTEMPTS):
            known = self._get(self._name)
            before = self._keys_of(known)
            after, result = verb(before, lambda before=before: self._pepper(before))  # type: ignore[misc]
            if after == before or self._put(self._name, known, KEYS_ENTRY, write_keys(after)):
                return result
        raise KeyFault(f"{self._where}: others go on changing it")

    def _keys_of(self, secret: Object | None) -> KeyFile:
        raw = None if secret is None else _entry(secret, KEYS_ENTRY)
        if raw is None:
            return KeyFile()
        try:
            return read_keys(raw)
        except KeyFault as fault:
            raise KeyFault(f"{self._where}, {KEYS_ENTRY}: {fault}") from None

    def _pepper(self, file: KeyFile) -> bytes:
        found = pepper_of_environment()
        if found is not None:
            return found
        name = pepper_secret(self._name)
        secret = self._get(name)
        raw = None if secret is None else _entry(secret, PEPPER_ENTRY)
        if raw is None and not file.keys:
            # Only while no key depends on it; another one may have been made meanwhile.
            self._put(name, secret, PEPPER_ENTRY, new_pepper())
            secret = self._get(name)
            raw = None if secret is None else _entry(secret, PEPPER_ENTRY)
        if raw is None:
            raise KeyFault(f"Secret {self._namespace}/{name}: has no {PEPPER_ENTRY}")
        return read_pepper(raw)

    def _get(self, name: str) -> Object | None:
        answer = self._ask("GET", f"{self._path}/{name}")
        return None if answer.status_code == 404 else self._object(answer)

    def _put(self, name: str, known: Object | None, entry: str, content: bytes) -> bool:
        """Create or change a Secret; False when somebody else was faster."""
        if len(content) > MAX_BYTES:
            raise KeyFault(
                f"{self._where}: {len(content)} bytes of keys are too many; delete revoked ones "
                "(rayserve keys revoke --delete), or keep them in a file"
            )
        data = {entry: base64.b64encode(content).decode()}
        if known is None:
            metadata = {"name": name, "namespace": self._namespace}
            created = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
            answer = self._ask("POST", self._path, created)
        else:
            changed = {**known, "data": {**(known.get("data") or {}), **data}}
            answer = self._ask("PUT", f"{self._path}/{name}", changed)
        if answer.status_code == 409:
            return False
        self._object(answer)
        return True

    def _ask(self, method: str, path: str, content: Object | None = None) -> httpx.Response:
        cluster = self._cluster
        try:
            return httpx.request(
                method,
                cluster.url + path,
                json=content,
                headers={"authorization": f"Bearer {cluster.token}"} if cluster.token else {},
                verify=cluster.tls,
                timeout=TIMEOUT_S,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise KeyFault(
                f"{self._where}: no answer from the Kubernetes API at {cluster.url} "
                f"({type(error).__name__})"
            ) from None

    def _object(self, answer: httpx.Response) -> Object:
        """Return what an answer holds.

        Raises:
            KeyFault: with the API's own reason, when it holds none.
        """
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            found = {}
        if answer.is_success and found.get("kind") == "Secret":
            return found
        reason = found.get("message") or f"the Kubernetes API answered {answer.status_code}"
        raise KeyFault(f"{self._where}: {str(reason)[:500]}")


def _entry(secret: Mapping[str, Any], name: str) -> bytes | None:
    value = (secret.get("data") or {}).get(name)
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, TypeError):
        raise KeyFault(f"{name}: is not base64") from None
