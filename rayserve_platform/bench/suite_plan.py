"""What a suite measures: which servers, how often, with what load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.inference import ANSWERS
from rayserve_platform.bench.peer import ModelFlags, Part, Peer
from rayserve_platform.bench.peers import PEERS
from rayserve_platform.bench.prompts import BUILT_IN

MODEL_NAME = "bench-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuitePlan:
    """What to measure.

    `per_client` requests are sent by each of `concurrency` clients in a run of the LLM, the TGIS
    and the GenAI part, so a run has the same number of waves at every concurrency; `seconds` is the
    length of a run of the overhead, the Caikit, the v2 and the auth part. `gguf` is the file of
    the LLM for OpenVINO GenAI's pipeline. `embedder` is the directory of the Caikit part's model,
    and of one of the v2 part's, which are made in `graphs`. `caikit`, `kserve` and `mlserver` are
    the folders of the environments that those servers run in. `ready_s` is the deadline for a
    server's start, up to its first answer.
    """

    peers: tuple[Peer, ...]
    out: Path
    model: Path | None = None
    gguf: Path | None = None
    embedder: Path | None = None
    graphs: Path = Path(".bench/openvino-models")
    caikit: Path = Path(".bench/caikit")
    kserve: Path = Path(".bench/kserve")
    mlserver: Path = Path(".bench/mlserver")
    configs: Path = Path("configs/bench")
    runs: int = 3
    rounds: int = 1
    concurrency: tuple[int, ...] = (1, 8, 16)
    per_client: int = 4
    max_tokens: int = 64
    seconds: int = 5
    ready_s: float = 300.0
    timeout_s: float = 300.0
    use_wrk: bool = True
    prompts: tuple[str, ...] = BUILT_IN
    flags: ModelFlags = field(default_factory=ModelFlags)

    def settings(self) -> dict[str, object]:
        """Return what results depend on, as a JSON object."""
        return {
            "servers": [peer.name for peer in self.peers],
            "flags": asdict(self.flags),
            "runs": self.runs,
            "rounds": self.rounds,
            "concurrency": self.concurrency,
            "requests_per_client": self.per_client,
            "max_tokens": self.max_tokens,
            "prompts": len(self.prompts),
            "seconds": self.seconds,
        }

    def check(self) -> None:
        """Refuse what would fail only after minutes.

        Raises:
            BenchError: a model directory, a server's environment or a config file is missing.
        """
        if self.need("model"):
            _check_model("--model", self.model, "the LLM servers need a Hugging Face model")
        if self.need("gguf") and (self.gguf is None or not self.gguf.is_file()):
            raise BenchError("the genai part needs the LLM as a GGUF file: --gguf FILE")
        if self.need("embedder") or self.lacks_graphs:
            need = "the Caikit and the v2 part need an embedding model"
            _check_model("--embedder", self.embedder, need)
        for name, folder in self.environments().items():
            if self.need(name) and not (folder / "bin/python").exists():
                raise BenchError(
                    f"no environment of {name}'s in {folder}; build it with: make {name}-peer"
                )
        missing = [
            str(self.configs / peer.config)
            for peer in self.peers
            if peer.config and not (self.configs / peer.config).is_file()
        ]
        if missing:
            raise BenchError(
                f"config files not found: {', '.join(missing)}; run from the repository's root, "
                "or give their folder with --configs"
            )

    def environments(self) -> dict[str, Path]:
        """Return the folder of each environment by the placeholder that it has in commands."""
        return {"caikit": self.caikit, "kserve": self.kserve, "mlserver": self.mlserver}

    @property
    def lacks_graphs(self) -> bool:
        """Whether the models of the v2 part are still to be made."""
        needed = any(peer.part == "v2" for peer in self.peers)
        return needed and not (self.graphs / ANSWERS).is_file()

    def need(self, placeholder: str) -> bool:
        """Whether the command of any server has the placeholder of that name."""
        return any(peer.needs(placeholder) for peer in self.peers)


def _check_model(option: str, folder: Path | None, need: str) -> None:
    if folder is None:
        raise BenchError(f"{need}: {option} DIR")
    if not (folder / "config.json").is_file():
        raise BenchError(f"{option} {folder} has no config.json: not a model directory")


def part_named(name: str) -> Part | None:
    """Return the part of that name, None for `all`."""
    match name:
        case "llm" | "overhead" | "caikit" | "tgis" | "v2" | "genai" | "auth":
            return name
        case _:
            return None


def choose(names: Sequence[str], part: Part | None) -> tuple[Peer, ...]:
    """Return the named peers (all, when none is named) of the part (of all, when None).

    Raises:
        BenchError: an unknown name, or nothing left.
    """
    known = {peer.name for peer in PEERS}
    if unknown := [name for name in names if name not in known]:
        raise BenchError(f"unknown server {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    chosen = tuple(
        peer
        for peer in PEERS
        if (not names or peer.name in names) and (part is None or peer.part == part)
    )
    if not chosen:
        raise BenchError(f"none of {', '.join(names)} is in part {part}")
    return chosen
