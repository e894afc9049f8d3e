"""An authority that goes away and comes back while many are asking."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.authorities import running
from tests.kube import KubeApi

CLIENTS = 8
POLICY = {
    "authentication": {"k": {"kubernetesTokenReview": {"audiences": ["rayserve"]}}},
    "authorization": {
        "rbac": {
            "kubernetesSubjectAccessReview": {
                "user": {"selector": "auth.identity.username"},
                "resourceAttributes": {
                    "name": {"expression": "model.name"},
                    "verb": {"value": "get"},
                },
            }
        }
    },
}


async def test_an_outage_under_load_is_answered_503_and_ends_by_itself(
    serve: Any, eventually: Callable[..., Any]
) -> None:
    async with running(KubeApi()) as kube:
        kube.grant("system:authenticated", name="alpha")
        auth = {"kubernetes": {"url": kube.url}, "budget_s": 2}
        server = await serve("openai", policy=POLICY, auth=auth)
        seen: list[int] = []
        is_over = asyncio.Event()

        async def client(number: int) -> None:
            """Ask with a token that nobody has asked with before, each time."""
            turn = 0
            while not is_over.is_set():
                token = f"token-{number}-{turn}"
                kube.account(token, f"tenant:{number}")
                headers = {"authorization": f"Bearer {token}"}
                body = {"model": "alpha", "prompt": "x", "max_tokens": 1}
                answer = await server.http.post("/v1/completions", json=body, headers=headers)
                seen.append(answer.status_code)
                turn += 1
                await asyncio.sleep(0.01)

        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        await eventually(lambda: len(seen) > 100)
        assert set(seen) == {200}
        for fault in ("hang", 500, "reset"):
            kube.fault = fault
            await eventually(lambda: set(seen[-CLIENTS:]) == {503})
            seen.clear()
            await eventually(lambda: len(seen) > 100)
            assert set(seen) == {503}
            kube.fault = None
            await eventually(lambda: len(seen) > CLIENTS and set(seen[-CLIENTS:]) == {200})
            assert set(seen) == {200, 503}
        await kube.stop()
        await eventually(lambda: len(seen) > CLIENTS and set(seen[-CLIENTS:]) == {503})
        await kube.start()
        await eventually(lambda: set(seen[-CLIENTS:]) == {200})
        is_over.set()
        await asyncio.gather(*clients)
        assert set(seen) == {200, 503}
