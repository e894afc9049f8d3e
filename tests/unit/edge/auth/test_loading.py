"""Who may load models: whom a key, the settings or the Kubernetes API give just that right."""

from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.expression import PolicyFault
from rayserve_platform.edge.auth.keystore import Key
from tests.kube import KubeApi

CALL, LOAD = Target(model="llama"), Target(model="llama", operation="load")
REVIEW: dict[str, Any] = {
    "authentication": {"u": {"plain": {"selector": "request.headers.x-user"}}},
    "authorization": {
        "rbac": {
            "kubernetesSubjectAccessReview": {
                "user": {"selector": "auth.identity.username"},
                "resourceAttributes": {
                    "resource": {"value": "inferenceservices"},
                    "name": {"expression": "model.name"},
                    "verb": {"value": "get"},
                },
            }
        }
    },
}
BY_PATH = {"rbac": {"kubernetesSubjectAccessReview": {"user": {"value": "a"}}}}


class Keys:
    """A store with one key."""

    def __init__(self, key: Key) -> None:
        self.key = key

    def find(self, token: str) -> Key | None:
        return self.key

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass


async def refused(asking: Any) -> str:
    with pytest.raises(Denial) as caught:
        await asking
    assert caught.value.code is Code.PERMISSION_DENIED
    return caught.value.rule


@pytest.mark.parametrize("may", [True, False])
async def test_a_key_loads_models_only_where_it_says_so(guarded: Any, may: bool) -> None:
    policy: dict[str, Any] = {"authentication": {"own": {"apiKey": {}}}}
    key = Key(id="k1", principal="a", models=frozenset({"llama"}), load=may)
    ask = await guarded(policy, keys=Keys(key), load=[{"predicate": "true"}])
    await ask("rsp_x", target=CALL)
    if may:
        await ask("rsp_x", target=LOAD)
    else:
        assert await refused(ask("rsp_x", target=LOAD)) == "key scope"
    other = Target(model="mixtral", operation="load")
    assert await refused(ask("rsp_x", target=other)) == "key scope"


async def test_the_kubernetes_api_is_asked_whether_the_model_may_be_updated(
    kube: KubeApi, guarded: Any
) -> None:
    kube.grant("caller", verb="get", resource="inferenceservices", name="llama")
    kube.grant("admin", verb="update", resource="inferenceservices", name="llama")
    ask = await guarded(REVIEW, kube=kube)
    await ask(target=CALL, headers={"x-user": "caller"})
    await ask(target=LOAD, headers={"x-user": "admin"})
    assert await refused(ask(target=LOAD, headers={"x-user": "caller"})) == "authorization.rbac"
    assert await refused(ask(target=CALL, headers={"x-user": "admin"})) == "authorization.rbac"


async def test_a_review_of_a_path_gives_no_right_to_load(kube: KubeApi, guarded: Any) -> None:
    kube.grant("a", verb="post", path="/v1/x")
    ask = await guarded({"authorization": BY_PATH}, kube=kube)
    await ask(target=CALL)
    assert await refused(ask(target=LOAD)) == "load"


async def test_a_review_that_did_not_apply_gives_no_right_to_load(
    kube: KubeApi, guarded: Any
) -> None:
    kube.grant("a", verb="update", name="llama")
    rule = {**REVIEW["authorization"]["rbac"], "when": [{"predicate": "request.path == '/x'"}]}
    ask = await guarded({**REVIEW, "authorization": {"rbac": rule}}, kube=kube)
    assert await refused(ask(target=LOAD, headers={"x-user": "a"})) == "load"


@pytest.mark.parametrize("pattern", ["false", "auth.identity.absent == 1", "'yes'"])
async def test_a_condition_on_loading_that_is_not_true_refuses(guarded: Any, pattern: str) -> None:
    ask = await guarded({}, load=[{"predicate": pattern}])
    await ask(target=CALL)
    assert await refused(ask(target=LOAD)) == "load"


async def test_conditions_on_loading_may_be_those_that_the_policy_names(guarded: Any) -> None:
    named = {"posts": [{"selector": "request.method", "operator": "eq", "value": "POST"}]}
    ask = await guarded({"patterns": named}, load=[{"patternRef": "posts"}])
    await ask(target=LOAD)
    assert await refused(ask(target=LOAD, method="GET")) == "load"
    with pytest.raises(PolicyFault, match="load: patternRef 'gets'"):
        await guarded({"patterns": named}, load=[{"patternRef": "gets"}])
