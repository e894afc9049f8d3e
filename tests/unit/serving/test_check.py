"""`check` on every config that ships, and on broken ones."""

from pathlib import Path

import pytest
import yaml

from rayserve_platform.serving.build import INGRESS_DEFAULTS
from rayserve_platform.serving.check import check
from rayserve_platform.settings.app import App, Gateway

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))
SERVING = [path for path in SHIPPED if path.parent.name != "bench"]

GATEWAY = {
    "name": "front",
    "import_path": "deployments.gateway:app",
    "args": {"models": {"m": "back"}},
}


def fake(name: str = "a", **more) -> dict:
    args = {"model": {"id": "m"}, **more.pop("args", {})}
    return {"name": name, "import_path": "deployments.fake:app", "args": args, **more}


@pytest.fixture
def checked(tmp_path):
    """Checks the given applications, or the text of a whole file."""

    def run(*applications, text: str | None = None, **options):
        path = tmp_path / "serve.yaml"
        content = {"applications": list(applications), **options}
        path.write_text(yaml.safe_dump(content) if text is None else text)
        return check(path)

    return run


def test_configs_are_found():
    assert {path.parent.name for path in SHIPPED} >= {"bench", "quickstart"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_that_ships_is_right(path):
    found = check(path)
    assert found.errors == []
    assert found.routed
    assert found.args
    assert all(isinstance(args, App | Gateway) for args in found.args.values())
    expected = ["model.source: there is no /"]
    if path.parent.name in ("auth", "quotas"):  # they are made by hand before the first start
        expected.append("ingress.auth.keys: there is no keys.json")
    if path.parent.name == "quickstart":
        expected.append("engine: auto: OpenVINO GenAI")
    assert all(any(words in note for words in expected) for note in found.notes)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_that_ships_uses_haproxy_and_big_messages(path):
    env = yaml.safe_load(path.read_text())["controller_options"]["runtime_env"]["env_vars"]
    assert env["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert int(env["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]) > 4 * 2**20


@pytest.mark.parametrize("path", SERVING, ids=lambda path: str(path.relative_to(ROOT)))
def test_haproxy_holds_a_stream_as_long_as_its_replica_may_take_to_finish_it(path):
    """Ray's own 120 s would cut it when replicas change."""
    env = yaml.safe_load(path.read_text())["controller_options"]["runtime_env"]["env_vars"]
    grace_s = INGRESS_DEFAULTS["graceful_shutdown_timeout_s"]
    assert int(env["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) >= grace_s


def test_a_right_file_has_its_typed_args(checked):
    found = checked(fake(args={"topology": "colocated"}))
    assert (found.errors, found.notes) == ([], [])
    assert found.args["a"].topology == "colocated"
    assert set(found.routed) == {"a"}


def test_an_application_without_a_name_has_serves_default_name(checked):
    application = fake()
    del application["name"]
    found = checked(application)
    assert found.errors == []
    assert set(found.args) == set(found.routed) == {"default"}


def test_a_missing_file_and_a_folder_cannot_be_read(tmp_path):
    assert check(tmp_path / "none.yaml").errors == ["cannot be read: No such file or directory"]
    assert check(tmp_path).errors == ["cannot be read: Is a directory"]


def test_bytes_that_are_no_text_cannot_be_read(tmp_path):
    path = tmp_path / "serve.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    (line,) = check(path).errors
    assert line.startswith("cannot be read: ")


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "\tx", "!!python/object:os.system {}", "a: \0"]
)
def test_what_is_not_yaml_says_so_in_one_line(checked, text):
    (line,) = checked(text=text).errors
    assert line.startswith("is not YAML: ")
    assert "\n" not in line


@pytest.mark.parametrize("text", ["", "- a", "text", "applications: {}", "app: []"])
def test_a_list_of_applications_is_required(checked, text):
    assert checked(text=text).errors == ["applications: a list of applications is required"]


@pytest.mark.parametrize(
    ("import_path", "words"),
    [
        ("no_such_package.x:app", "No module named 'no_such_package'"),
        ("deployments.none:app", "No module named 'deployments.none'"),
        ("deployments.fake:none", "has no attribute 'none'"),
        ("deployments.fake", "has no attribute ''"),
    ],
)
def test_an_import_path_that_leads_nowhere_is_an_error(checked, import_path, words):
    (line,) = checked(fake(import_path=import_path)).errors
    assert line.startswith("applications.0 (a).import_path: ")
    assert words in line


@pytest.mark.parametrize("body", ["raise RuntimeError('sorry')", "def broken(:", "1 / 0"])
def test_a_module_that_cannot_be_imported_is_an_error(checked, tmp_path, monkeypatch, body):
    (tmp_path / "operators_own.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = checked(fake(import_path="operators_own:app")).errors
    assert line.startswith("applications.0 (a).import_path: ")


def test_a_builder_without_typed_args_is_noted_and_left_alone(checked):
    found = checked(fake(import_path="json:dumps"))
    assert found.errors == []
    assert found.notes == ["applications.0 (a): json:dumps has no typed args; not checked"]


@pytest.mark.parametrize(
    ("application", "line"),
    [
        (
            fake(args={"topologi": "x"}),
            "applications.0 (a).args: unknown setting 'topologi'; did you mean 'topology'?",
        ),
        (
            fake(args={"fake": {"token_s": -1}}),
            "applications.0 (a).args.fake.token_s: Input should be greater than or equal to 0",
        ),
        (
            fake(args={"deployment": {"num_replica": 2}}),
            "applications.0 (a).args: deployment: unknown Serve deployment option 'num_replica';",
        ),
        (
            fake(args={"deployment": {"max_ongoing_requests": -2}}),
            "applications.0 (a).args.max_ongoing_requests: Input should be greater than 0",
        ),
        (
            fake(args={"topology": "colocated", "ingress": {"deployment": {"num_replicas": 2}}}),
            "applications.0 (a).args: ingress.deployment: a colocated ingress is placed by",
        ),
        (
            fake(args={"topology": "runtime"}),
            "a: topology 'runtime' speaks no protocol and needs route_prefix: null,",
        ),
        (
            fake(args={"topology": "runtime"}, route_prefix=None),
            "applications: none has a route, so no client can reach any",
        ),
        (
            {"name": "a", "import_path": "deployments.fake:app"},
            "applications.0 (a).args.model: Field required",
        ),
    ],
)
def test_wrong_args_are_errors_at_their_place(checked, application, line):
    (found,) = checked(application).errors
    assert found.startswith(line)


def test_serves_own_schema_is_checked(checked):
    assert checked(fake(), proxy_location="Nowhere").errors[0].startswith("proxy_location: ")
    assert "duplicates" in checked(fake(), fake()).errors[0]
    assert checked({}).errors == ["applications.0.import_path: Field required"]


def test_a_gateway_before_unrouted_runtimes_is_right(checked):
    back = fake("back", args={"topology": "runtime"}, route_prefix=None)
    found = checked(GATEWAY, back)
    assert (found.errors, found.notes) == ([], [])
    assert set(found.routed) == {"front"}


def test_a_gateway_before_an_application_with_a_route_is_an_error(checked):
    found = checked(GATEWAY, fake("back", route_prefix="/back"))
    assert found.errors == ["back: stands behind gateway 'front' and needs route_prefix: null"]


def test_a_gateway_before_an_application_of_another_file_is_noted(checked):
    found = checked(GATEWAY)
    assert found.errors == []
    assert found.notes == ["front: model 'm' is served by 'back', which is not in this file"]


def test_a_throughput_option_that_limits_messages_is_noted(checked):
    env = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    found = checked(fake(), controller_options={"runtime_env": {"env_vars": env}})
    assert found.errors == []
    assert "4 MiB" in found.notes[0]


def test_a_model_that_is_not_on_this_machine_is_noted_not_refused(checked):
    application = {
        "name": "a",
        "import_path": "deployments.vllm:app",
        "args": {"model": {"id": "m", "source": "/no/such/model"}},
    }
    found = checked(application)
    assert found.errors == []
    assert "there is no /no/such/model on this machine" in found.notes[0]


def test_keys_that_are_not_on_this_machine_are_noted_not_refused(checked, tmp_path):
    keys = tmp_path / "keys.json"
    ingress = {"auth": {"keys": {"file": str(keys)}}}
    found = checked(fake(args={"ingress": ingress}))
    assert (found.errors, len(found.notes)) == ([], 1)
    assert f"there is no {keys}" in found.notes[0]
    keys.write_text("{}")
    assert checked(fake(args={"ingress": ingress})).notes == []
