"""API keys in labelled Kubernetes Secrets, followed by list and watch."""

import asyncio
from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth import kubernetes
from rayserve_platform.edge.auth.denial import Denial
from tests.kube import KubeApi

LABELS = {"app": "llama-keys"}
POLICY = {
    "namespace": "models",
    "authentication": {
        "friends": {
            "apiKey": {"selector": {"matchLabels": LABELS}},
            "credentials": {"authorizationHeader": {"prefix": "APIKEY"}},
        }
    },
}


async def code_of(asking: Any) -> Code | str:
    try:
        return str((await asking).id)
    except Denial as denial:
        return denial.code


def key(value: str) -> dict[str, str]:
    return {"authorization": f"APIKEY {value}"}


async def test_a_key_is_known_by_its_secret(kube: KubeApi, guarded: Any) -> None:
    await kube.put(
        "alice", {"api_key": b"k-alice"}, labels=LABELS, annotations={"example.org/team": "ml"}
    )
    ask = await guarded(POLICY, kube=kube)
    principal = await ask(headers=key("k-alice"))
    assert principal.id == "alice"
    assert principal.claims["metadata"]["annotations"] == {"example.org/team": "ml"}
    assert "data" not in principal.claims
    assert await code_of(ask(headers=key("k-mallory"))) is Code.UNAUTHENTICATED
    assert await code_of(ask("k-alice")) is Code.UNAUTHENTICATED, "the prefix is another"
    assert await code_of(ask()) is Code.UNAUTHENTICATED


async def test_no_annotation_tells_the_key(kube: KubeApi, guarded: Any) -> None:
    applied = '{"data":{"api_key":"b2xkLWtleQ=="}}'
    annotations = {
        "kubectl.kubernetes.io/last-applied-configuration": applied,
        "example.org/copy": '{"stringData":{"api_key":"k-alice"}}',
        "example.org/encoded": "ay1hbGljZQ==",
        "example.org/team": "ml",
    }
    await kube.put("alice", {"api_key": b"k-alice"}, labels=LABELS, annotations=annotations)
    ask = await guarded(POLICY, kube=kube)
    principal = await ask(headers=key("k-alice"))
    assert principal.claims["metadata"]["annotations"] == {"example.org/team": "ml"}


async def test_the_challenge_is_in_authorinos_form(kube: KubeApi, guarded: Any) -> None:
    ask = await guarded(POLICY, kube=kube)
    with pytest.raises(Denial) as caught:
        await ask()
    assert caught.value.headers == (("www-authenticate", 'APIKEY realm="friends"'),)


async def test_secrets_are_followed(kube: KubeApi, guarded: Any, eventually: Any) -> None:
    ask = await guarded(POLICY, kube=kube)
    assert await code_of(ask(headers=key("k1"))) is Code.UNAUTHENTICATED

    async def becomes(value: str, what: Code | str) -> None:
        seen: list[Any] = []
        for _ in range(200):
            seen.append(await code_of(ask(headers=key(value))))
            if seen[-1] == what:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(seen[-1])

    await kube.put("alice", {"api_key": b"k1"}, labels=LABELS)
    await becomes("k1", "alice")
    await kube.put("alice", {"api_key": b"k2"}, labels=LABELS)
    await becomes("k2", "alice")
    assert await code_of(ask(headers=key("k1"))) is Code.UNAUTHENTICATED, "the old key is gone"
    await kube.delete("alice")
    await becomes("k2", Code.UNAUTHENTICATED)


async def test_a_watch_that_is_too_old_is_begun_anew(
    kube: KubeApi, guarded: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "RETRY_S", 0.01)
    await kube.put("alice", {"api_key": b"k1"}, labels=LABELS)
    ask = await guarded(POLICY, kube=kube)
    await kube.expire_watches()
    lists = [("GET", "/api/v1/namespaces/models/secrets")] * 4  # list, watch; list, watch
    await eventually(lambda: kube.requests == lists)
    assert await code_of(ask(headers=key("k1"))) == "alice"


@pytest.mark.parametrize("line", [{"message": "x"}, {"type": "ADDED"}, [], 1, {"type": 1}], ids=str)
async def test_a_watch_that_tells_nonsense_is_begun_anew(
    kube: KubeApi, guarded: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch, line: Any
) -> None:
    monkeypatch.setattr(kubernetes, "RETRY_S", 0.01)
    await kube.put("alice", {"api_key": b"k1"}, labels=LABELS)
    ask = await guarded(POLICY, kube=kube)
    await kube.tell(line)
    await eventually(lambda: len(kube.requests) == 4)  # list, watch; list, watch
    assert await code_of(ask(headers=key("k1"))) == "alice"


async def test_an_outage_keeps_the_last_keys_and_recovers(
    kube: KubeApi, guarded: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "RETRY_S", 0.01)
    await kube.put("alice", {"api_key": b"k1"}, labels=LABELS)
    ask = await guarded(POLICY, kube=kube)
    await kube.stop()
    assert await code_of(ask(headers=key("k1"))) == "alice"
    await kube.put("bob", {"api_key": b"k2"}, labels=LABELS)
    await kube.start()
    for _ in range(300):
        if await code_of(ask(headers=key("k2"))) == "bob":
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the new key does not count")


async def test_keys_that_were_never_read_are_an_outage_not_a_bad_key(
    kube: KubeApi, guarded: Any
) -> None:
    await kube.stop()
    ask = await guarded(POLICY, kube=kube)
    assert await code_of(ask(headers=key("k1"))) is Code.UNAVAILABLE


async def test_a_secret_without_a_key_spoils_no_other(kube: KubeApi, guarded: Any) -> None:
    await kube.put("empty", {"api_key": b""}, labels=LABELS)
    await kube.put("other", {"password": b"x"}, labels=LABELS)
    await kube.put("broken", {"api_key": b"x"}, labels=LABELS)
    kube.secrets[("models", "broken")]["data"] = {"api_key": "not base64!"}
    await kube.put("alice", {"api_key": b"k1\n"}, labels=LABELS)
    ask = await guarded(POLICY, kube=kube)
    assert await code_of(ask(headers=key("k1"))) == "alice"
    assert await code_of(ask(headers=key(""))) is Code.UNAUTHENTICATED


async def test_secrets_of_other_labels_and_namespaces_are_not_taken(
    kube: KubeApi, guarded: Any
) -> None:
    await kube.put("other", {"api_key": b"k1"}, labels={"app": "another"})
    await kube.put("away", {"api_key": b"k2"}, labels=LABELS, namespace="elsewhere")
    ask = await guarded(POLICY, kube=kube)
    assert await code_of(ask(headers=key("k1"))) is Code.UNAUTHENTICATED
    assert await code_of(ask(headers=key("k2"))) is Code.UNAUTHENTICATED
    rule = {"selector": {"matchLabels": LABELS}, "allNamespaces": True}
    everywhere = await guarded({"authentication": {"k": {"apiKey": rule}}}, kube=kube)
    assert await code_of(everywhere("k2")) == "away"


async def test_a_key_is_not_kept_in_clear(kube: KubeApi, guarded: Any) -> None:
    import gc

    secret = "k-" + "0123456789abcdef" * 2
    await kube.put("alice", {"api_key": secret.encode()}, labels=LABELS)
    ask = await guarded(POLICY, kube=kube)
    method = ask.guard._ways.ways["friends"].run.method
    await code_of(ask(headers=key("x")))
    gc.collect()
    held = str([method._known, method._secrets._kept])
    assert "alice" in held
    assert secret not in held
