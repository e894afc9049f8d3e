"""Which Kubernetes API a person means, and as whom: as kubectl finds it.

Source of the file's fields: kubernetes.io/docs/reference/config-api/kubeconfig.v1, and of what a
credential plugin says, client-authentication.v1.
"""

import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rayserve_platform.edge.keys.change import KeyFault

IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PLUGIN_LIMIT_S = 60.0
UNSUPPORTED = {
    "auth-provider": "use a credential plugin ('exec')",
    "username": "use a token or a client certificate",
    "as": "impersonation is not supported",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """An API server and the way in."""

    url: str
    namespace: str
    token: str | None
    tls: ssl.SSLContext | bool


def find_cluster(kubeconfig: Path | None, context: str | None) -> Cluster:
    """Return the cluster that a person means: of a file, else of the pod this runs in.

    Raises:
        KeyFault: when there is none, or its file says something that is not supported.
    """
    paths = [kubeconfig] if kubeconfig is not None else _default_paths()
    found = [path for path in paths if path.is_file()]
    if not found and kubeconfig is None and context is None and _is_in_pod():
        return _of_pod()
    if not found:
        raise KeyFault(
            f"no Kubernetes: there is no {', '.join(map(str, paths))}, nor is this a pod"
        )
    return _of_files(found, context)


def _default_paths() -> list[Path]:
    listed = os.environ.get("KUBECONFIG", "")
    paths = [Path(path) for path in listed.split(os.pathsep) if path]
    return paths or [Path("~/.kube/config").expanduser()]


def _is_in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (IN_POD / "token").is_file()


def _of_pod() -> Cluster:
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return Cluster(
        url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=(IN_POD / "namespace").read_text().strip(),
        token=(IN_POD / "token").read_text().strip(),
        tls=ssl.create_default_context(cafile=str(IN_POD / "ca.crt")),
    )


def _of_files(paths: list[Path], context: str | None) -> Cluster:
    """Read files as one: of a name that stands in several the first counts."""
    contents = [_read(path) for path in paths]
    wanted = context or next(
        (c["current-context"] for c in contents if c.get("current-context")), ""
    )
    if not wanted:
        raise KeyFault(f"{paths[0]}: no current-context; say which with --context")
    chosen, _ = _named(contents, paths, "context", wanted)
    cluster, beside = _named(contents, paths, "cluster", chosen.get("cluster", ""))
    user, own = _named(contents, paths, "user", chosen.get("user", ""))
    for field, instead in UNSUPPORTED.items():
        if field in user:
            raise KeyFault(f"{own}: the user's '{field}': {instead}")
    if "proxy-url" in cluster:
        raise KeyFault(f"{beside}: the cluster's 'proxy-url' is not supported")
    try:
        return Cluster(
            url=str(cluster["server"]).rstrip("/"),
            namespace=chosen.get("namespace") or "default",
            token=_token(user, own),
            tls=_tls(cluster, beside, user, own),
        )
    except (KeyError, ValueError, OSError) as error:
        raise KeyFault(f"{paths[0]}: context '{wanted}': {_what(error)}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        raise KeyFault(f"{path}: can't be read as a kubeconfig")
    return content


def _named(
    contents: list[dict[str, Any]], paths: list[Path], kind: str, name: str
) -> tuple[dict[str, Any], Path]:
    """Return what has a name, and the file that it stands in."""
    for content, path in zip(contents, paths, strict=True):
        for entry in content.get(f"{kind}s") or ():
            if entry.get("name") == name:
                return entry.get(kind) or {}, path
    raise KeyFault(f"{', '.join(map(str, paths))}: there is no {kind} '{name}'")


def _token(user: Mapping[str, Any], own: Path) -> str | None:
    if user.get("token"):
        return str(user["token"])
    if user.get("tokenFile"):
        return (own.parent / str(user["tokenFile"])).read_text().strip()
    return _of_plugin(user["exec"]) if user.get("exec") else None


def _of_plugin(plugin: Mapping[str, Any]) -> str:
    """Run a credential plugin, which writes an ExecCredential."""
    command = [str(plugin["command"]), *map(str, plugin.get("args") or ())]
    asked = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential"}
    told = {str(one["name"]): str(one["value"]) for one in plugin.get("env") or ()}
    try:
        done = subprocess.run(
            command,
            env={
                **os.environ,
                **told,
                "KUBERNETES_EXEC_INFO": json.dumps({**asked, "spec": {"interactive": False}}),
            },
            stdout=subprocess.PIPE,
            timeout=PLUGIN_LIMIT_S,
            check=True,
        )
        return str(json.loads(done.stdout)["status"]["token"])
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError):
        raise ValueError(f"the credential plugin '{command[0]}' gave no token") from None


def _tls(
    cluster: Mapping[str, Any], beside: Path, user: Mapping[str, Any], own: Path
) -> ssl.SSLContext | bool:
    if cluster.get("insecure-skip-tls-verify"):
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    else:
        authority = _given(cluster, beside, "certificate-authority")
        tls = ssl.create_default_context(cadata=None if authority is None else authority.decode())
    certificate = _given(user, own, "client-certificate")
    key = _given(user, own, "client-key")
    if certificate and key:
        # Python reads them from files alone; these are their owner's, and gone at once.
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(certificate + b"\n" + key)
            pair.flush()
            tls.load_cert_chain(pair.name)
    return tls


def _given(entry: Mapping[str, Any], file: Path, field: str) -> bytes | None:
    """Return what stands in the file itself, or in another one beside it."""
    if entry.get(f"{field}-data"):
        return base64.b64decode(entry[f"{field}-data"], validate=True)
    if entry.get(field):
        return (file.parent / str(entry[field])).read_bytes()
    return None


def _what(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"lacks {error}"
    if isinstance(error, OSError):
        return f"can't read {error.filename}: {os.strerror(error.errno or 0)}"
    return str(error)
