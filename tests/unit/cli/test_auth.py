"""`rayserve auth check`, as a person runs it."""

import pytest
import yaml
from click.testing import CliRunner

from rayserve_platform.cli import main

POLICY = {
    "apiVersion": "authorino.kuadrant.io/v1beta3",
    "kind": "AuthConfig",
    "metadata": {"name": "llama", "namespace": "models"},
    "spec": {
        "hosts": ["llama.example"],
        "authentication": {"user": {"plain": {"selector": "request.headers.x-user"}}},
        "authorization": {
            "own": {
                "patternMatching": {
                    "patterns": [{"predicate": "model.name == auth.identity.username"}]
                }
            }
        },
        "response": {"success": {"headers": {"x-who": {"plain": {"value": "me"}}}}},
    },
}


@pytest.fixture
def check(tmp_path):
    """Runs the command on a policy."""

    def run(*args: str, content=POLICY, code: int = 0, stdin: str = ""):
        path = tmp_path / "policy.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        done = CliRunner().invoke(main, ["auth", "check", str(path), *args], input=stdin)
        assert done.exit_code == code, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.output

    return run


def test_a_policy_is_checked_and_described(check):
    told = check()
    assert "authentication.user: priority 0" in told
    assert "hosts: not looked at" in told
    assert told.rstrip().endswith("policy.yaml: ok")


def test_a_decision_is_told_step_by_step(check):
    asked = ("--request", "POST /v1/completions?x=1", "-H", "X-User: llama")
    told = check(*asked, "--model", "llama").splitlines()
    assert told == [
        "  authentication.user: knows llama",
        "  authorization.own: passed",
        "  response: x-who: me",
        "allowed: llama may call llama",
    ]
    told = check(*asked, "--model", "mixtral", code=1).splitlines()
    assert told[1] == "  authorization.own: refused: the patterns don't hold"
    assert told[2].startswith("denied: permission_denied, 'You are not allowed to do this.'")


def test_without_a_model_only_who_it_is_is_told(check):
    told = check("--request", "GET /v1/models", "-H", "x-user: llama")
    assert told.splitlines()[-1].startswith("known: llama; ")


def test_somebody_unknown_is_told_of(check):
    told = check("--request", "GET /v1/models", code=1)
    assert "authentication.user: refused: there is no identity" in told
    assert "denied: unauthenticated" in told


def test_a_token_is_read_from_standard_input(check):
    way = {"plain": {"expression": "{'username': request.headers.authorization}"}}
    spec = {"authentication": {"t": way}}
    told = check(
        "--request", "GET /", "--token-file", "-", content={"spec": spec}, stdin="secret\n"
    )
    assert "known: Bearer secret; " in told


def test_the_policy_of_a_serve_config_is_found(check):
    auth = {"policy": POLICY}
    config = {"applications": [{"name": "a", "args": {"ingress": {"auth": auth}}}, {"name": "b"}]}
    told = check("--request", "GET /", "-H", "x-user: a", content=config)
    assert "known: a; " in told
    assert "0 applications have ingress.auth" in check(content={"applications": [3]}, code=1)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"metadata": {"m": {"uma": {}}}}, "metadata.m: 'uma' is not supported"),
        ({"authorization": {"a": {"spicedb": {}}}}, "'spicedb' is not supported"),
        ({"authentification": {}}, "did you mean 'authentication'?"),
        ({"when": [{"predicate": "request.method ="}]}, "when: ERROR"),
        ({"when": [{"patternRef": "none"}]}, "patternRef 'none' is not in 'patterns'"),
        ({"authentication": {"k": {"apiKey": {}}}}, "'apiKey' needs a selector"),
    ],
)
def test_a_policy_that_can_not_be_used_is_refused_by_name(check, spec, said):
    assert said in check(content={"spec": spec}, code=1)


def test_what_is_no_policy_is_told(check, tmp_path):
    assert "is not YAML" in check(content="a: [", code=1)
    assert "expected AuthConfig" in check(content={**POLICY, "kind": "Secret"}, code=1)
    assert "write 'POST" in check("--request", "v1/models", code=2)
    assert "no header" in check("--request", "GET /", "-H", "x", code=2)
    missing = CliRunner().invoke(main, ["auth", "check", str(tmp_path / "none.yaml")])
    assert missing.exit_code == 1
    assert "can't be read" in missing.output


def test_a_right_to_load_is_explained(check):
    asked = ("--request", "POST /v2/repository/models/llama/load", "-H", "X-User: llama")
    told = check(*asked, "--model", "llama", "--load", code=1).splitlines()
    assert told[1] == "  authorization.own: passed"
    assert "(load: neither auth.load nor a SubjectAccessReview gives the right)" in told[-1]
    assert "need --model" in check("--request", "POST /x", "--load", code=2)
