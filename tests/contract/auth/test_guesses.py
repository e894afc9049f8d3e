"""Names that nobody has: what callers write must reach no metric, no log line of its length."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.accounts import Accounts
from rayserve_platform.edge.auth.opening import open_gate
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.keys.change import create
from rayserve_platform.edge.keys.file import KeysInFile
from rayserve_platform.edge.observe import Record
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress
from tests.authorities import Issuer, bearer, running
from tests.conftest import listening
from tests.contract.auth.conftest import Repository, policy_of, runtime
from tests.contract.auth.test_adapters import declaring
from tests.contract.auth.test_outage import POLICY
from tests.kube import KubeApi

LONG = "x" * 5000


def key_for(path: Path, *models: str) -> str:
    """Make a key for some models."""

    def verb(keys: Any, pepper: Any) -> Any:
        made = create(keys, pepper(), now=datetime.now(UTC), principal="carol", models=models)
        return made[::2]

    token: str = KeysInFile(path).update(verb)
    return token


def models_in_metrics() -> set[str]:
    """Return the models that the edge's metrics tell of."""
    return {
        sample.labels["model"]
        for family in REGISTRY.collect()
        if family.name.startswith("rayserve_request")
        for sample in family.samples
        if "model" in sample.labels
    }


@pytest.mark.parametrize("models", [("alpha",), ("elsewhere",)])
async def test_a_guess_reaches_neither_metrics_nor_the_log_at_length(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, models: tuple[str, ...]
) -> None:
    file = tmp_path / "keys.json"
    headers = bearer(key_for(file, *models))
    policy: dict[str, Any] = {"authentication": {"own": {"apiKey": {}}}}
    server = await serve("openai", policy=policy, auth={"keys": {"file": str(file)}})
    with caplog.at_level(logging.INFO, "rayserve.auth"):
        for name in ("guess-1", "guess\nforged line", LONG):
            body = {"model": name, "prompt": "x"}
            answer = await server.http.post("/v1/completions", json=body, headers=headers)
            assert answer.status_code in (403, 404)
    assert not any("guess" in model or "xxx" in model for model in models_in_metrics())
    assert all("\n" not in line and LONG not in line for line in caplog.messages)


async def test_a_name_that_is_too_long_is_asked_nobody_about(serve: Any) -> None:
    async with running(KubeApi()) as kube:
        kube.account("token", "tenant:1")
        kube.grant("system:authenticated", name="alpha")
        server = await serve("openai", policy=POLICY, auth={"kubernetes": {"url": kube.url}})
        headers = bearer("token")
        for name, status in (("alpha", 200), (LONG, 404)):
            body = {"model": name, "prompt": "x"}
            answer = await server.http.post("/v1/completions", json=body, headers=headers)
            assert answer.status_code == status, answer.text
        assert LONG not in str(kube.reviews)


async def test_a_list_is_no_refusal_of_what_it_lacks(
    issuer: Issuer,
) -> None:
    """A gateway's models are decided upon one by one."""
    lines: list[Any] = []

    class Book(Accounts):
        def settle(self, record: Record, *, duration_s: float) -> None:
            lines.append((record.route, record.refused_by, record.model))

    runtimes = [("alpha", runtime("alpha")), ("beta", runtime("beta"))]
    settings = Ingress.model_validate({"auth": {"policy": policy_of(issuer)}})
    assert settings.auth is not None
    catalog = Catalog(runtimes, guarded=True)
    gate = open_gate(settings.auth, catalog.targets)
    edge = HttpEdge(
        http_protocols(settings, catalog, engine_elsewhere=True),
        settings,
        gate=gate,
        accounts=Book(),
    )
    headers = bearer(issuer.token(models=["alpha"]))
    async with listening(edge) as url, httpx.AsyncClient(base_url=url, headers=headers) as http:
        assert (await http.get("/v1/models")).status_code == 200
        body = {"model": "beta", "prompt": "x"}
        assert (await http.post("/v1/completions", json=body)).status_code == 404
    await gate.guard.stop()
    assert lines == [
        ("/v1/models", "", ""),
        ("/v1/completions", "authorization.models", "beta"),
    ]


async def test_loading_takes_its_patterns_where_the_policy_does_not_apply(
    serve: Any, issuer: Issuer
) -> None:
    policy = policy_of(issuer, when=[{"predicate": "'x-checked' in request.headers"}])
    nobody, everybody = [{"predicate": "false"}], [{"predicate": "true"}]
    for load, status in (([], 403), (nobody, 403), (everybody, 200)):
        models = Repository("alpha", "beta")
        server = await serve("kserve", models, policy=policy, auth={"load": load})
        answer = await server.http.post("/v2/repository/models/alpha/load")
        assert answer.status_code == status, answer.text
        assert models.seen == (["alpha"] if status == 200 else [])
        assert (await server.http.get("/v2/models/alpha")).status_code == 200


async def test_a_card_by_name_says_no_more_than_the_list(serve: Any, issuer: Issuer) -> None:
    server = await serve("openai", ("alpha", declaring("alpha", "sql")))
    every = bearer(issuer.token(models=["alpha", "sql"]))
    await server.http.get("/v1/models", headers=every)
    headers = bearer(issuer.token(models=["sql"]))
    listed = (await server.http.get("/v1/models", headers=headers)).json()["data"]
    one = (await server.http.get("/v1/models/sql", headers=headers)).json()
    assert listed == [one]
    assert "alpha" not in str(one)
