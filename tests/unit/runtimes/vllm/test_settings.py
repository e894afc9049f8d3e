"""The names that settings read out of vLLM's source are those of its real dataclasses."""

import dataclasses

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs, make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from rayserve_platform.settings.vllm import (
    NOT_OURS,
    OURS,
    SCALED_BY_SERVE,
    argument_types,
    check_arguments,
)

WITHOUT_OPTION = {"enable_mm_processor_stats", "mamba_config", "model_weights"}
"""Fields of vLLM 0.32 that its own parser cannot set."""


def fields(kind) -> set[str]:
    return {field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")}


def test_every_engine_argument_is_accepted_or_refused_on_purpose():
    refused = set()
    for name in fields(EngineArgs) | fields(AsyncEngineArgs):
        try:
            check_arguments({name: None}, "engine")
        except ValueError as error:
            refused.add(name)
            why = "num_replicas" if name in SCALED_BY_SERVE else "the ingress and Serve do this job"
            assert OURS.get(name, why) in str(error)  # noqa: PT017  # whether it is refused is the question
    assert refused == (fields(AsyncEngineArgs) & (set(OURS) | NOT_OURS | SCALED_BY_SERVE))


@pytest.mark.parametrize(
    ("group", "kind"), [("engine", AsyncEngineArgs), ("frontend", FrontendArgs)]
)
def test_the_names_read_as_text_are_exactly_the_real_ones(group, kind):
    assert set(argument_types(group) or ()) == fields(kind)


@pytest.mark.parametrize("kind", [AsyncEngineArgs, FrontendArgs])
def test_the_default_of_every_argument_has_the_type_that_is_asked_for(kind):
    group = "frontend" if kind is FrontendArgs else "engine"
    for field in dataclasses.fields(kind):
        known = not field.name.startswith("_") and field.name not in {
            *OURS,
            *NOT_OURS,
            *SCALED_BY_SERVE,
        }
        if known and isinstance(field.default, bool | int | float | str):
            check_arguments({field.name: field.default}, group)


def test_every_argument_has_an_option_of_vllms_parser_but_for_three():
    parser = make_arg_parser(FlexibleArgumentParser())
    options = {action.dest for action in parser._actions if action.option_strings}
    assert (fields(AsyncEngineArgs) | fields(FrontendArgs)) - options == WITHOUT_OPTION
