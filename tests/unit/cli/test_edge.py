"""`rayserve edge render`."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rayserve_platform.cli import main
from rayserve_platform.edge.front import haproxy, nginx
from rayserve_platform.edge.front.site import Site

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs/caikit-standalone/serve.yaml"
PEM = Path("/etc/edge/tls.pem")


def render(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["edge", "render", *arguments])
    return done.exit_code, done.output


def fake_config(tmp_path: Path, **changes: object) -> str:
    content = yaml.safe_load((ROOT / "configs/bench/fake-separate.yaml").read_text())
    content.update(changes)
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump(content))
    return str(config)


@pytest.mark.parametrize(
    ("server", "http", "grpc"),
    [
        ("haproxy", "server serve 127.0.0.1:8000\n", "server serve 127.0.0.1:9000 proto h2\n"),
        ("nginx", "proxy_pass http://127.0.0.1:8000;", "grpc_pass grpc://127.0.0.1:9000;"),
    ],
)
def test_serves_addresses_come_from_the_config(server: str, http: str, grpc: str) -> None:
    status, text = render(str(CONFIG), "--server", server, "--certificate", str(PEM))
    assert status == 0, text
    assert http in text
    assert grpc in text
    assert str(PEM) in text


def test_serves_addresses_may_be_others(tmp_path: Path) -> None:
    out = tmp_path / "haproxy.cfg"
    ports = ("--backend", "serve.local", "--http-port", "81", "--grpc-port", "82")
    status, text = render(str(CONFIG), "--certificate", str(PEM), *ports, "--out", str(out))
    assert (status, text) == (0, "")
    written = out.read_text()
    assert "server serve serve.local:81\n" in written
    assert "server serve serve.local:82 proto h2\n" in written


def test_bodies_are_limited_as_the_ingress_limits_them(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "configs/bench/fake-separate.yaml").read_text())
    content["applications"][0]["args"]["ingress"] = {"limits": {"max_body_mib": 3}}
    config = fake_config(tmp_path, applications=content["applications"])
    _, text = render(config, "--certificate", str(PEM))
    assert f"gt {3 * 2**20}" in text


def test_a_config_that_is_wrong_is_told(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("applications: []\n")
    status, text = render(str(config), "--certificate", str(PEM))
    assert status == 1
    assert "none has a route" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "443"), "listen: must be ADDRESS:PORT, got '443'"),
        (("--listen", "*:70000"), "listen: must be ADDRESS:PORT, got '*:70000'"),
        (("--listen", "*:443 ssl; deny"), "listen: must be ADDRESS:PORT"),
        (("--user", "a b"), "user: 'a b' has characters that a config file can't hold"),
        (("--key", "/etc/edge/other.pem"), "key: HAProxy wants the key in the certificate's file"),
        (("--out", "/nowhere/at/all"), "/nowhere/at/all: cannot be written: No such file"),
    ],
)
def test_a_mistake_is_told_before_a_server_makes_it(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, text = render(fake_config(tmp_path), "--certificate", str(PEM), *arguments)
    assert status == 1
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize("render_site", [haproxy.render, nginx.render])
def test_serves_choice_of_an_application_is_taken_off_where_there_is_one(render_site) -> None:
    one, several = (
        render_site(Site(listen="*:443", certificate=PEM, http="a:1", grpc="a:2", one_app=so))
        for so in (True, False)
    )
    removed = set(one.splitlines()) - set(several.splitlines())
    assert [line for line in removed if "application" in line and "header" in line]


def test_haproxy_finds_a_key_beside_its_certificate() -> None:
    certificate, key = Path("/tls/tls.crt"), Path("/tls/tls.key")
    text = haproxy.render(Site(listen="*:443", certificate=certificate, key=key, http="a:1"))
    assert "ssl-load-extra-del-ext" in text
