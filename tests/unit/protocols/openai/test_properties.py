"""What holds for every body that can be sent, however its fields are combined."""

from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Embed, Generate, Tokenize
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.protocols.openai.schema import ChatBody, CompletionBody, Generation
from rayserve_platform.protocols.openai.translate import (
    parse,
    to_chat_generate,
    to_completion_generates,
    to_embed,
    to_tokenize,
)
from rayserve_platform.settings.app import Ingress

texts = st.text(max_size=12)
token_ids = st.lists(
    st.integers(0, 0x11FFFF) | st.sampled_from([0xD800, 0xDFFF, 0x10FFFF, 2**63]), max_size=6
)
schemas = st.dictionaries(texts, st.none() | texts | st.booleans(), max_size=3)
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=3)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
            "content": st.none() | texts | parts,
        }
    ),
    min_size=1,
    max_size=3,
)
prompts = texts | st.lists(texts, max_size=3) | token_ids | st.lists(token_ids, max_size=3)
numbers = st.floats(allow_nan=False, allow_infinity=False)

GENERATION = {
    "max_tokens": st.integers(1, 60),
    "min_tokens": st.integers(0, 60),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "top_k": st.integers(-1, 50),
    "min_p": st.floats(0, 1),
    "n": st.integers(1, 4),
    "seed": st.integers(-(2**70), 2**70),
    "stop": texts | st.lists(texts, max_size=4),
    "stop_token_ids": st.lists(st.integers(), max_size=3),
    "include_stop_str_in_output": st.booleans(),
    "ignore_eos": st.booleans(),
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.floats(-2, 2),
    "repetition_penalty": st.floats(0.1, 10),
    "logit_bias": st.dictionaries(
        st.integers(-5, 10**6).map(str), st.floats(-100, 100), max_size=3
    ),
    "stream": st.none() | st.booleans(),
    "stream_options": st.fixed_dictionaries(
        {}, optional={"include_usage": st.booleans(), "continuous_usage_stats": st.booleans()}
    ),
    "truncate_prompt_tokens": st.integers(1, 50),
    "skip_special_tokens": st.booleans(),
    "add_special_tokens": st.booleans(),
    "priority": st.integers(-9, 9),
    "structured_outputs": st.fixed_dictionaries(
        {},
        optional={
            "regex": texts,
            "choice": st.lists(texts, max_size=3),
            "grammar": texts,
            "json": texts | schemas,
            "json_object": st.booleans(),
        },
    ),
    "response_format": st.sampled_from(
        [
            {"type": "text"},
            {"type": "json_object"},
            {"type": "json_schema"},
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
        ]
    ),
}
CHAT = {
    "max_completion_tokens": st.integers(1, 60),
    "logprobs": st.none() | st.booleans(),
    "top_logprobs": st.integers(0, 20),
    "add_generation_prompt": st.booleans(),
    "continue_final_message": st.booleans(),
    "chat_template_kwargs": schemas,
}
COMPLETION = {"logprobs": st.integers(0, 20), "echo": st.none() | st.booleans()}
EMBEDDING = {
    "encoding_format": st.sampled_from(["float", "base64"]),
    "dimensions": st.integers(1, 16),
    "truncate_prompt_tokens": st.integers(1, 50),
}


def some(fields):
    """Draw a few of the fields: most combinations of many contradict each other."""
    names = st.sets(st.sampled_from(sorted(fields)), max_size=5)
    return names.flatmap(lambda n: st.fixed_dictionaries({name: fields[name] for name in n}))


def body(required, optional):
    return st.builds(lambda a, b: {**a, **b}, st.fixed_dictionaries(required), some(optional))


chats = body({"messages": messages}, GENERATION | CHAT)
completions = body({"prompt": prompts}, GENERATION | COMPLETION)
embeddings = body({"input": prompts}, EMBEDDING)
tokenizations = some({"prompt": texts, "messages": messages, "add_special_tokens": st.booleans()})
detokenizations = st.fixed_dictionaries({"tokens": token_ids})


def test_every_field_of_generation_is_drawn():
    assert set(Generation.model_fields) - set(GENERATION) <= {
        "model",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
    }
    assert set(ChatBody.model_fields) - set(Generation.model_fields) == {"messages", *CHAT}
    assert set(CompletionBody.model_fields) - set(Generation.model_fields) == {
        "prompt",
        *COMPLETION,
    }


def translated(verb, sent):
    """Parse and translate; returns the requests, or the error where the body is refused."""
    names = {"model": "m", "request_id": "r"}
    try:
        parsed: Any = parse(verb, sent)
        if verb == "chat":
            return [to_chat_generate(parsed, adapter=None, **names)], None
        if verb == "completion":
            return to_completion_generates(parsed, adapter=None, **names), None
        if verb == "embeddings":
            return [to_embed(parsed, **names)], None
        return [to_tokenize(parsed, **names)], None
    except PlatformError as error:
        return [], error


@settings(max_examples=300)
@given(
    st.one_of(
        st.tuples(st.just("chat"), chats),
        st.tuples(st.just("completion"), completions),
        st.tuples(st.just("embeddings"), embeddings),
        st.tuples(st.just("tokenize"), tokenizations),
    )
)
def test_a_body_translates_or_is_refused_as_the_callers_mistake(drawn):
    verb, sent = drawn
    requests, error = translated(verb, sent)
    if error is not None:
        assert error.code is Code.INVALID_ARGUMENT
        return
    kinds = {"chat": Generate, "completion": Generate, "embeddings": Embed, "tokenize": Tokenize}
    assert requests
    for request in requests:
        assert type(request) is kinds[verb]
        if isinstance(request, Generate):
            assert request.n == sent.get("n", 1)
            assert request.stream == bool(sent.get("stream"))
            assert "" not in request.stopping.stop_sequences
            most = request.stopping.max_new_tokens
            assert most is None or most >= request.stopping.min_new_tokens
            hash(request.stopping)


@pytest.mark.parametrize(
    ("path", "bodies"),
    [
        ("/v1/chat/completions", chats),
        ("/v1/completions", completions),
        ("/v1/embeddings", embeddings),
        ("/tokenize", tokenizations),
        ("/detokenize", detokenizations),
    ],
)
@settings(max_examples=150)
@given(data=st.data())
async def test_no_body_makes_the_ingress_fail(make_fake, path, bodies, data):
    runtime = make_fake(max_model_len=100)
    protocol = OpenAIHttp(Catalog([runtime]))
    transport = httpx.ASGITransport(HttpEdge([protocol], Ingress(access_log=False)))
    sent = data.draw(bodies)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", verify=False) as http:
        response = await http.post(path, json=sent)
    assert response.status_code in (200, 400), response.text
    assert "internal_server_error" not in response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        assert response.text.endswith("data: [DONE]\n\n")
    assert runtime.running == 0
