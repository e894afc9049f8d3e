"""Guards by a policy, over authorities on real sockets."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.guard import Guard
from rayserve_platform.edge.auth.keystore import KeyStore
from rayserve_platform.settings.auth.app import Auth, Kubernetes
from rayserve_platform.settings.auth.policy import Policy
from tests.authorities import Issuer, Service, running
from tests.kube import KubeApi

LLAMA = Target(model="llama")


class Asker:
    """Asks a guard as a client's request would."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.notes: list[str] = []

    async def __call__(
        self,
        token: str | None = None,
        *,
        target: Target | None = LLAMA,
        headers: Mapping[str, str] | None = None,
        query: str = "",
        **attributes: Any,
    ) -> Principal:
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        attributes = {"id": "r-1", "protocol": "openai", "path": "/v1/x", **attributes}
        request = Request(headers=sent, query=query, **attributes)
        credentials = Credentials(sent.items(), query)
        return await self.guard.decide(credentials, request, target, self.notes.append)


Ask = Callable[..., Awaitable[Asker]]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running(Issuer()) as found:
        yield found


@pytest.fixture
async def kube() -> AsyncIterator[KubeApi]:
    async with running(KubeApi()) as found:
        yield found


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running(Service()) as found:
        yield found


@pytest.fixture
async def guarded() -> AsyncIterator[Ask]:
    """Starts a guard: `guarded(policy, kube=…, keys=…, **settings)`."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            policy: Any,
            *,
            kube: KubeApi | None = None,
            keys: KeyStore | None = None,
            **settings: Any,
        ) -> Asker:
            checked = Policy.model_validate(policy)
            kubernetes = Kubernetes(url=kube.url if kube else None)
            auth = Auth(policy=checked, kubernetes=kubernetes, **settings)
            guard = Guard(auth, checked, keys)
            await guard.start()
            stack.push_async_callback(guard.stop)
            return Asker(guard)

        yield make
