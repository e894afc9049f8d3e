"""Keys in a Secret: made on the command line, followed by servers."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import REGISTRY

from rayserve_platform.cli import main
from rayserve_platform.edge.keys import secret as module
from rayserve_platform.edge.keys import store, watched
from rayserve_platform.edge.keys.change import create
from rayserve_platform.edge.keys.cluster import Cluster
from rayserve_platform.edge.keys.document import PEPPER_VARIABLE
from rayserve_platform.edge.keys.secret import KeysInSecret
from rayserve_platform.edge.keys.store import ReloadingKeys
from rayserve_platform.edge.keys.token import parse
from rayserve_platform.edge.keys.watched import FollowedSecret
from rayserve_platform.settings.auth.app import Kubernetes
from tests.authorities import running
from tests.kube import KubeApi


@pytest.fixture(autouse=True)
def _nothing_of_the_environment(monkeypatch):
    monkeypatch.setattr(watched, "PAUSE_S", 0.05)
    monkeypatch.setattr(store, "RETRY_S", 0.05)
    for name in (PEPPER_VARIABLE, "RAYSERVE_KEYS_FILE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def kube():
    async with running(KubeApi()) as found:
        yield found


@pytest.fixture
def keys(kube, tmp_path):
    """Runs `rayserve keys` on the Secret `models/keys`, in a thread."""
    config = {
        "current-context": "test",
        "contexts": [
            {"name": "test", "context": {"cluster": "c", "user": "u", "namespace": "models"}}
        ],
        "clusters": [{"name": "c", "cluster": {"server": kube.url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))

    async def run(*args: str, code: int = 0, secret: str = "keys") -> Any:
        command = ["keys", *args, "--secret", secret, "--kubeconfig", str(path)]
        done = await asyncio.to_thread(CliRunner().invoke, main, command)
        assert done.exit_code == code, done.output
        return done

    return run


async def made(keys) -> str:
    token: str = (await keys("create", "--principal", "alice")).stdout.strip()
    return token


def id_of(token: str) -> str:
    parsed = parse(token)
    assert parsed is not None
    return parsed[0]


@pytest.fixture
async def follow(kube):
    stores = []

    async def start() -> ReloadingKeys:
        found = ReloadingKeys(FollowedSecret(Kubernetes(url=kube.url), "models/keys"))
        await found.start()
        stores.append(found)
        return found

    yield start
    for found in stores:
        await found.stop()


async def test_the_first_key_makes_both_secrets_and_the_digests_are_apart_from_the_pepper(
    keys, kube
):
    token = await made(keys)
    assert set(kube.secrets) == {("models", "keys"), ("models", "keys-pepper")}
    assert set(kube.secrets[("models", "keys")]["data"]) == {"keys.json"}
    assert set(kube.secrets[("models", "keys-pepper")]["data"]) == {"pepper"}
    assert token.rsplit("_", 1)[1] not in json.dumps(list(kube.secrets.values()))
    listed = json.loads((await keys("list", "--json")).stdout)
    assert [key["id"] for key in listed] == [id_of(token)]


async def test_a_change_leaves_what_else_the_secret_holds(keys, kube):
    await made(keys)
    raw = kube.secrets[("models", "keys")]
    await kube.put(
        "keys", {**_entries(raw), "other": b"1"}, labels={"app": "x"}, annotations={"a": "b"}
    )
    token = await made(keys)
    changed = kube.secrets[("models", "keys")]
    assert set(changed["data"]) == {"keys.json", "other"}
    await keys("revoke", id_of(token))
    states = {k["id"]: k["state"] for k in json.loads((await keys("list", "--json")).stdout)}
    assert states[id_of(token)] == "disabled"


def _entries(secret) -> dict[str, bytes]:
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


async def test_of_several_writers_at_once_no_key_is_lost(keys, kube):
    await made(keys)
    place = KeysInSecret(
        Cluster(url=kube.url, namespace="models", token=None, tls=True), "models", "keys"
    )

    def add(number: int) -> str:
        return place.update(
            lambda file, pepper: create(
                file, pepper(), now=datetime.now(UTC), principal=f"p{number}"
            )[::2]
        )

    tokens = await asyncio.gather(*[asyncio.to_thread(add, number) for number in range(6)])
    listed = json.loads((await keys("list", "--json")).stdout)
    assert {id_of(token) for token in tokens} < {key["id"] for key in listed}
    assert len(listed) == 7


async def test_a_lost_pepper_is_not_made_anew(keys, kube):
    await made(keys)
    await kube.delete("keys-pepper")
    done = await keys("create", "--principal", "bob", code=1)
    assert "Secret models/keys-pepper: has no pepper" in done.stderr


async def test_another_namespace_can_be_named(keys, kube):
    await keys("create", "--principal", "alice", secret="other/keys")
    assert ("other", "keys") in kube.secrets


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (403, "Secret models/keys: told to fail"),
        (500, "Secret models/keys: told to fail"),
        ("reset", "no answer from the Kubernetes API"),
        (b"nonsense", "the Kubernetes API answered 200"),
        (b'{"kind": "Pod"}', "the Kubernetes API answered 200"),
    ],
)
async def test_what_the_api_answers_is_told_in_a_line(keys, kube, fault, words):
    kube.fault = fault
    done = await keys("list", code=1)
    assert words in done.stderr
    assert "Traceback" not in done.output


async def test_keys_that_a_server_could_not_read_are_refused(keys, kube, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 300)
    await made(keys)
    done = await keys("create", "--principal", "bob", code=1)
    assert "delete revoked ones" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("list", "--secret", "Keys"), "'Keys' is no [NAMESPACE/]NAME"),
        (("list", "--secret", "a", "--file", "b"), "--secret goes with neither --file"),
        (("list", "--secret", "a", "--pepper-file", "b"), "nor --pepper-file"),
        (("list", "--secret", "a", "--kubeconfig", "/nowhere"), "there is no /nowhere"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked(args, words):
    done = CliRunner().invoke(main, ["keys", *args])
    assert done.exit_code in (1, 2)
    assert words in done.stderr


async def test_a_server_follows_the_secret(keys, kube, follow, eventually):
    first = await made(keys)
    found = await follow()
    assert found.find(first).principal == "alice"
    second = await made(keys)
    await eventually(lambda: found.find(second) is not None)
    await keys("revoke", id_of(first))
    await eventually(lambda: found.find(first) is None)
    assert found.find(second) is not None
    # A watch, and no asking again and again.
    assert len([r for r in kube.requests if r[0] == "GET"]) < 40


async def test_what_can_t_be_read_keeps_the_last_good_set(keys, kube, follow, eventually, caplog):
    token = await made(keys)
    found = await follow()
    good = _entries(kube.secrets[("models", "keys")])
    await kube.put("keys", {"keys.json": b"{"})
    await eventually(lambda: REGISTRY.get_sample_value("rayserve_keys_stale") == 1)
    assert found.find(token) is not None
    await kube.put("keys", good)
    await eventually(lambda: REGISTRY.get_sample_value("rayserve_keys_stale") == 0)
    await kube.delete("keys")
    await eventually(lambda: REGISTRY.get_sample_value("rayserve_keys_stale") == 1)
    assert found.find(token) is not None
    assert token not in caplog.text


@pytest.mark.parametrize("outage", ["down", "expired"])
async def test_a_watch_that_ends_is_begun_anew(keys, kube, follow, eventually, outage):
    first = await made(keys)
    found = await follow()
    if outage == "down":
        await kube.stop()
        await eventually(lambda: REGISTRY.get_sample_value("rayserve_keys_stale") == 1)
        assert found.find(first) is not None
        await kube.start()
    else:
        await kube.expire_watches()
    second = await made(keys)
    await eventually(lambda: found.find(second) is not None)


async def test_the_pepper_of_the_environment_needs_no_second_secret(
    kube, follow, monkeypatch, keys
):
    monkeypatch.setenv(PEPPER_VARIABLE, "e" * 40)
    token = await made(keys)
    assert set(kube.secrets) == {("models", "keys")}
    found = await follow()
    assert found.find(token) is not None


def test_a_place_says_where_it_is():
    cluster = Cluster(url="http://x", namespace="n", token=None, tls=True)
    assert str(KeysInSecret(cluster, "n", "keys")) == "Secret n/keys"
