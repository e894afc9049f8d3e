"""The servers that are measured side by side: how each starts, and what is asked of it.

Everything a command line says is data here; a peer's command changes in this file only.
"""

from __future__ import annotations

from dataclasses import replace

from rayserve_platform.bench.embedding import MODEL_ID
from rayserve_platform.bench.peer import Part, Peer, Wire

VLLM = "vllm"
VLLM_COMPLETIONS = "vllm-completions"
VLLM_CHAT = "vllm-chat"
CAIKIT = "caikit"
KSERVE = "kserve"

_VLLM_COMMAND = (
    "{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}",
    "--served-model-name", "{name}", "{model_flags}", "--host", "127.0.0.1", "--port", "{port}",
)  # fmt: skip
_RAY_LLM_COMMAND = (
    "{python}", "-m", "rayserve_platform.bench.ray_llm_peer", "--model", "{model}",
    "--name", "{name}", "--port", "{port}", "--engine-kwargs", "{engine_kwargs}",
)  # fmt: skip
_CAIKIT_COMMAND = (
    # Isolated: what this environment says of Python's paths is not for that one.
    "{caikit}/bin/python", "-I", "{scripts}/caikit_peer.py", "--source", "{embedder}",
    "--models", "{caikit}-models", "--name", MODEL_ID, "--config", "{out}/caikit.yml",
    "--http-port", "{port}", "--grpc-port", "{grpc_port}", "--metrics-port", "{metrics_port}",
)  # fmt: skip
_MODEL_COMMAND = (
    "{python}", "-m", "rayserve_platform.bench.model_peer", "--model", "{embedder}",
    "--port", "{port}",
)  # fmt: skip
_GRAPHS_COMMAND = (
    "{python}", "-m", "rayserve_platform.bench.openvino_peer", "--models", "{graphs}",
    "--port", "{port}",
)  # fmt: skip
_PIPELINE_COMMAND = (
    "{python}", "-m", "rayserve_platform.bench.genai_peer", "--model", "{gguf}",
    "--threads", "2", "--port", "{port}",
)  # fmt: skip
_AUTH_COMMAND = (
    "{python}", "-m", "rayserve_platform.bench.auth_peer", "--port", "{port}", "--check",
)  # fmt: skip
_CHECKS = {
    "none": "without token checks",
    "key": "API keys",
    "review": "TokenReviews that are kept",
    "access": "TokenReviews and SubjectAccessReviews that are kept",
    "rs256": "JWTs, RS256",
    "es256": "JWTs, ES256",
}
_BARE_COMMAND = ("{python}", "-m", "rayserve_platform.bench.bare_peer", "--port", "{port}")


def _vllm(name: str, about: str, part: Part) -> Peer:
    """Return vLLM's own server, which the others of a part are compared with."""
    return Peer(name=name, about=about, part=part, command=_VLLM_COMMAND, reference=name)


def _v2_peer(name: str, about: str, *, lacks: tuple[str, ...] = ()) -> Peer:
    """Return a server of KServe v2 that runs in its own environment."""
    command = (f"{{{name}}}/bin/python", "-I", f"{{scripts}}/{name}_peer.py",
               "--models", "{graphs}", "--http-port", "{port}", "--grpc-port", "{grpc_port}",
               "--metrics-port", "{metrics_port}")  # fmt: skip
    return Peer(
        name=name, about=about, part="v2", command=command, reference=KSERVE,
        ready_path="/v2/health/ready", wire="v2", lacks=lacks,
    )  # fmt: skip


def _ours(
    name: str,
    about: str,
    part: Part,
    *,
    config: str,
    reference: str,
    without: tuple[str, ...] = (),
    wire: Wire = "openai",
) -> Peer:
    command = ("{python}", "-m", "rayserve_platform.cli", "run", "{config}",
               "--http-port", "{port}", "--grpc-port", "{grpc_port}",
               "--no-dashboard")  # fmt: skip
    return Peer(
        name=name, about=about, part=part, command=command, reference=reference, config=config,
        without=without, wire=wire,
    )  # fmt: skip


_TOPOLOGIES = {
    "separate": "ingress and engine in two deployments",
    "colocated": "engine in the ingress replica",
}


def _in_both_topologies(
    kind: str, about: str, part: Part, *, reference: str, wire: Wire = "openai"
) -> tuple[Peer, ...]:
    """Return one server for each topology; names and configs begin with the kind."""
    return tuple(
        _ours(
            f"ours-{kind}{topology}", f"{about}, {where}", part, config=f"{kind}{topology}.yaml",
            reference=reference, wire=wire,
        )
        for topology, where in _TOPOLOGIES.items()
    )  # fmt: skip


_THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
_HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_PLANES = {
    "": ("", ()),
    "-plain": (", HAProxy alone", (_THROUGHPUT,)),
    "-classic": (", Ray's classic proxy", (_THROUGHPUT, _HAPROXY)),
}


def _on_each_plane(name: str, about: str, *, config: str, reference: str) -> tuple[Peer, ...]:
    """Return one server for each data plane of Ray's; the first is the one our configs choose."""
    return tuple(
        _ours(
            name + suffix, about + plane, "overhead", config=config, reference=reference,
            without=without,
        )
        for suffix, (plane, without) in _PLANES.items()
    )  # fmt: skip


_V2 = replace(
    _ours(
        "ours-v2",
        "this platform over KServe v2, models in the ingress replica",
        "v2",
        config="v2.yaml",
        reference=KSERVE,
        wire="v2",
    ),
    ready_path="/v2/health/ready",
)
# Not of two cores, as the one above: two of them would not fit a machine of two.
_REPLICA = replace(
    _V2,
    name="ours-v2-replica",
    about="this platform over KServe v2, one replica of one core",
    args={"placement": {"num_cpus": 1}},
)

PEERS: tuple[Peer, ...] = (
    _vllm(VLLM, "vLLM's own OpenAI server", "llm"),
    *_in_both_topologies("", "this platform", "llm", reference=VLLM),
    Peer(
        name="ray-llm",
        about="ray.serve.llm with its defaults",
        part="llm",
        command=_RAY_LLM_COMMAND,
        reference=VLLM,
    ),
    Peer(
        name="ray-llm-direct",
        about="ray.serve.llm, direct streaming over HAProxy",
        part="llm",
        command=_RAY_LLM_COMMAND,
        reference=VLLM,
        environment={
            "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
        },
    ),
    Peer(
        name="bare-ingress",
        about="bare Ray Serve ASGI ingress",
        part="overhead",
        command=_BARE_COMMAND,
        reference="bare-ingress",
        ready_path="/",
        wire="bare",
    ),
    *_on_each_plane(
        "ours-fake-colocated",
        "this platform, fake engine in the ingress replica",
        config="fake-colocated.yaml",
        reference="bare-ingress",
    ),
    Peer(
        name="bare-hop",
        about="bare Ray Serve ASGI ingress, one handle hop",
        part="overhead",
        command=(*_BARE_COMMAND, "--hop"),
        reference="bare-hop",
        ready_path="/",
        wire="bare",
    ),
    *_on_each_plane(
        "ours-fake-separate",
        "this platform, fake engine behind a handle hop",
        config="fake-separate.yaml",
        reference="bare-hop",
    ),
    Peer(
        name=CAIKIT,
        about="the real Caikit runtime",
        part="caikit",
        command=_CAIKIT_COMMAND,
        reference=CAIKIT,
        ready_path="/health",
        wire="caikit",
    ),
    _ours(
        "ours-caikit",
        "this platform, model in the ingress replica",
        "caikit",
        config="caikit.yaml",
        reference=CAIKIT,
        wire="caikit",
    ),
    _ours(
        "ours-caikit-separate",
        "this platform, ingress and model in two deployments",
        "caikit",
        config="caikit-separate.yaml",
        reference=CAIKIT,
        wire="caikit",
    ),
    Peer(
        name="in-process",
        about="the model on OpenVINO, without a server",
        part="caikit",
        command=_MODEL_COMMAND,
        reference=CAIKIT,
        ready_path="/",
        wire="model",
    ),
    _vllm(VLLM_COMPLETIONS, "vLLM's own OpenAI server, its completions", "tgis"),
    *_in_both_topologies(
        "tgis-", "this platform over TGIS", "tgis", reference=VLLM_COMPLETIONS, wire="tgis"
    ),
    _v2_peer(KSERVE, "KServe's own Python model server"),
    _v2_peer("mlserver", "Seldon's MLServer, in one process", lacks=("binary",)),
    _V2,
    _REPLICA,
    replace(
        _REPLICA,
        name="ours-v2-replicas",
        about="this platform over KServe v2, two replicas of one core each",
        replicas=2,
        one_replica=_REPLICA.name,
    ),
    Peer(
        name="openvino",
        about="both models on OpenVINO, without a server",
        part="v2",
        command=_GRAPHS_COMMAND,
        reference=KSERVE,
        ready_path="/",
        wire="model",
    ),
    _vllm(VLLM_CHAT, "vLLM's own OpenAI server, its chat", "genai"),
    *_in_both_topologies("genai-", "this platform on OpenVINO GenAI", "genai", reference=VLLM_CHAT),
    Peer(
        name="openvino-genai",
        about="OpenVINO GenAI's own pipeline, without a server",
        part="genai",
        command=_PIPELINE_COMMAND,
        reference=VLLM_CHAT,
        ready_path="/",
        wire="model",
    ),
    *(
        Peer(
            name=f"auth-{kind}",
            about=f"our ingress without Ray over the fake engine, {what}",
            part="auth",
            command=(*_AUTH_COMMAND, kind),
            reference="auth-none",
            ready_path="/health",
        )
        for kind, what in _CHECKS.items()
    ),
)
