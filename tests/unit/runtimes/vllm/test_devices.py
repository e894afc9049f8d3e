"""Defaults that depend on the machine, on machines made up for the test."""

import functools

import pytest

from rayserve_platform.runtimes.vllm import devices
from rayserve_platform.runtimes.vllm.devices import (
    ENGINE_OVERHEAD_BYTES,
    GIB,
    LARGEST_DEFAULT_KV_CACHE_BYTES,
    cpu_flags,
    engine_defaults,
    free_memory_bytes,
    kv_cache_bytes,
    weights_bytes,
)
from rayserve_platform.settings.app import Placement

PLAIN = "sse4_2 avx2 avx512f avx512vl"
WITHOUT = Placement()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes up a machine: its processor's flags and its free memory."""
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)

    def make(flags: str = PLAIN, *, free: int = 8 * GIB, name: str = "flags") -> None:
        cpuinfo, meminfo = tmp_path / "cpuinfo", tmp_path / "meminfo"
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: x\n{name}\t\t: {flags}\nbugs\t\t: y\n")
        meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable: {free // 1024} kB\n")
        monkeypatch.setattr(devices, "cpu_flags", functools.partial(cpu_flags, cpuinfo))
        monkeypatch.setattr(
            devices, "free_memory_bytes", functools.partial(free_memory_bytes, meminfo)
        )

    return make


@pytest.fixture
def defaults(tmp_path):
    """Returns the defaults for a model in an empty directory."""

    def of(given=None, placement=WITHOUT, *, cpu=True):
        return engine_defaults(given or {}, placement, cpu=cpu, model_dir=tmp_path)

    return of


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_with_bfloat16_keeps_the_models_own_type(machine, defaults, flag):
    machine(f"{PLAIN} {flag}", name="Features" if flag == "bf16" else "flags")
    assert "dtype" not in defaults()


@pytest.mark.parametrize("flags", [PLAIN, "", "avx512_bf16x xbf16"])
def test_a_processor_without_bfloat16_computes_in_float32(machine, defaults, flags):
    machine(flags)
    assert defaults()["dtype"] == "float32"


def test_a_cpu_runs_eagerly(machine, defaults):
    machine()
    assert defaults()["enforce_eager"] is True


def test_what_is_given_wins_over_every_default(machine, defaults):
    machine()
    given = {
        "dtype": "bfloat16",
        "enforce_eager": False,
        "kv_cache_memory_bytes": 5,
        "distributed_executor_backend": "mp",
    }
    assert defaults(given) == {}
    assert set(given) - set(defaults({"dtype": None})) == {"dtype"}


@pytest.mark.parametrize(
    ("given", "own"),
    [({}, True), ({"tensor_parallel_size": 1}, True), ({"pipeline_parallel_size": 2}, False)],
)
def test_an_engine_of_one_worker_waits_without_a_core(machine, defaults, given, own):
    machine()
    assert ("distributed_executor_backend" in defaults(given)) is own


@pytest.mark.parametrize(
    ("free", "size"),
    [
        (8 * GIB, 2 * GIB),
        (2 * GIB, GIB // 2),
        (100 * GIB, LARGEST_DEFAULT_KV_CACHE_BYTES),
        (0, GIB // 4),
        (GIB // 8, GIB // 4),
    ],
)
def test_without_a_reservation_the_cache_is_a_quarter_of_what_is_free(
    machine, defaults, free, size
):
    machine(free=free)
    assert defaults()["kv_cache_memory_bytes"] == size


@pytest.mark.parametrize(
    ("memory_gib", "weights", "size"),
    [
        (10, 3 * GIB, 10 * GIB - 3 * GIB - ENGINE_OVERHEAD_BYTES),
        (100, 0, 100 * GIB - ENGINE_OVERHEAD_BYTES),
        (2.5, 0, GIB // 2),
        (1, 0, GIB // 4),
        (4, 40 * GIB, GIB // 4),
    ],
)
def test_with_a_reservation_the_cache_is_what_is_left_of_it(memory_gib, weights, size):
    placement = Placement(memory_gib=memory_gib)
    assert kv_cache_bytes(placement, weights, free=0) == size


def test_the_models_own_weights_are_counted(machine, tmp_path, defaults):
    machine()
    for name in ("model-1.safetensors", "model-2.safetensors", "tokenizer.json"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(GIB)
    assert weights_bytes(tmp_path) == 2 * GIB
    placement = Placement(memory_gib=6)
    assert defaults(placement=placement)["kv_cache_memory_bytes"] == 2 * GIB


def test_vllms_own_variable_for_the_cache_is_respected(machine, defaults, monkeypatch):
    machine()
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    assert "kv_cache_memory_bytes" not in defaults()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"tensor_parallel_size": 1}, {}),
        ({"tensor_parallel_size": 2}, {"distributed_executor_backend": "ray"}),
        ({"pipeline_parallel_size": 2}, {"distributed_executor_backend": "ray"}),
        ({"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}, {}),
        ({"tensor_parallel_size": None}, {}),
    ],
)
def test_on_gpus_only_parallel_workers_need_a_default(defaults, given, expected):
    assert defaults(given, cpu=False) == expected


def test_a_machine_that_says_nothing_of_itself_gets_the_safe_choice(tmp_path):
    missing = tmp_path / "none"
    assert cpu_flags(missing) == frozenset()
    assert free_memory_bytes(missing) == 0
    empty = tmp_path / "empty"
    empty.write_text("")
    assert cpu_flags(empty) == frozenset()
    assert free_memory_bytes(empty) == 0
