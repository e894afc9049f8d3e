"""Whole answers, held against the types that OpenAI itself publishes (package `openai`)."""

import base64
from dataclasses import replace

import numpy as np
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion

from rayserve_platform.runtimes.fake import FakeRuntime

MESSAGES = [{"role": "user", "content": "Tell me about foxes."}]
SENTENCE = "the quick brown fox jumps over the lazy dog. "


async def post(server, path, **body):
    response = await server.client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response


async def chat(server, **body) -> ChatCompletion:
    response = await post(server, "/v1/chat/completions", messages=MESSAGES, **body)
    return ChatCompletion.model_validate_json(response.content, strict=True)


async def complete(server, **body) -> Completion:
    response = await post(server, "/v1/completions", **{"prompt": "Once", **body})
    return Completion.model_validate_json(response.content, strict=True)


async def test_a_chat_completion_is_openais(serve_http):
    server = await serve_http()
    answer = await chat(server, model="fake", max_tokens=10)
    (choice,) = answer.choices
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "fake"
    assert choice.message.role == "assistant"
    assert choice.message.content is not None
    assert choice.message.content in SENTENCE * 2
    assert len(choice.message.content) == 10
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "length", None)
    assert answer.usage is not None
    prompt = len("user: Tell me about foxes.\n")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, 10)
    assert answer.usage.total_tokens == prompt + 10


async def test_the_name_that_was_asked_for_is_the_name_in_the_answer(serve_http, make_fake):
    server = await serve_http(make_fake(aliases=("gpt-9",)))
    assert (await chat(server, model="gpt-9", max_tokens=1)).model == "gpt-9"
    assert (await chat(server, max_tokens=1)).model == "fake"


async def test_several_choices_differ_and_are_counted_together(serve_http):
    server = await serve_http()
    answer = await chat(server, n=3, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24
    assert answer.usage.prompt_tokens == len("user: Tell me about foxes.\n")


async def test_a_stop_text_ends_a_choice_and_is_named(serve_http):
    server = await serve_http()
    answer = await chat(server, stop=["fox", "dog"])
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert (choice.model_extra or {})["stop_reason"] in {"fox", "dog"}
    assert "fox" not in str(choice.message.content)


@pytest.mark.parametrize("top", [0, 3])
async def test_logprobs_of_a_chat_are_one_entry_a_token(serve_http, top):
    server = await serve_http()
    answer = await chat(server, max_tokens=5, logprobs=True, top_logprobs=top)
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    for entry in choice.logprobs.content:
        assert entry.bytes == list(entry.token.encode())
        assert entry.logprob == pytest.approx(-0.693147)
        assert len(entry.top_logprobs) == top
        logprobs = [other.logprob for other in entry.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)


async def test_a_completion_is_openais(serve_http):
    server = await serve_http()
    answer = await complete(server, model="fake")
    (choice,) = answer.choices
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert (len(choice.text), choice.finish_reason) == (16, "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 20)


async def test_several_prompts_are_choices_in_their_order(serve_http):
    server = await serve_http()
    alone = [(await complete(server, prompt=prompt, n=2)).choices for prompt in ("a", "bb")]
    together = await complete(server, prompt=["a", "bb"], n=2)
    assert [c.index for c in together.choices] == [0, 1, 2, 3]
    assert [c.text for c in together.choices] == [c.text for part in alone for c in part]
    assert together.usage is not None
    assert (together.usage.prompt_tokens, together.usage.completion_tokens) == (3, 64)


async def test_token_ids_and_text_are_the_same_prompt(serve_http):
    server = await serve_http()
    from_ids = await complete(server, prompt=[ord(char) for char in "Once"])
    assert from_ids.choices[0].text == (await complete(server)).choices[0].text


async def test_logprobs_of_a_completion_are_parallel_lists(serve_http):
    server = await serve_http()
    (choice,) = (await complete(server, max_tokens=6, logprobs=2)).choices
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == choice.text
    assert choice.logprobs.text_offset == [0, 1, 2, 3, 4, 5]
    assert choice.logprobs.token_logprobs == pytest.approx([-0.693147] * 6)
    assert [len(top) for top in choice.logprobs.top_logprobs or []] == [2] * 6


async def test_echo_puts_the_prompt_before_the_text(serve_http):
    server = await serve_http()
    plain = (await complete(server, max_tokens=4)).choices[0]
    echoed = (await complete(server, max_tokens=4, echo=True, logprobs=0)).choices[0]
    assert echoed.text == "Once" + plain.text
    assert echoed.logprobs is not None
    assert "".join(echoed.logprobs.tokens or []) == echoed.text
    assert echoed.logprobs.text_offset == list(range(8))


async def test_embeddings_are_openais_in_both_encodings(serve_http):
    server = await serve_http()
    body = {"model": "fake", "input": ["a", "bb", "a"]}
    response = await post(server, "/v1/embeddings", **body)
    floats = CreateEmbeddingResponse.model_validate_json(response.content, strict=True)
    assert [item.index for item in floats.data] == [0, 1, 2]
    assert (floats.usage.prompt_tokens, floats.usage.total_tokens) == (4, 4)
    vectors = np.array([item.embedding for item in floats.data], dtype=np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not np.allclose(vectors[0], vectors[1])

    packed = (await post(server, "/v1/embeddings", **body, encoding_format="base64")).json()
    decoded = [np.frombuffer(base64.b64decode(i["embedding"]), "<f4") for i in packed["data"]]
    np.testing.assert_array_equal(np.stack(decoded), vectors)


async def test_the_model_list_is_openais_and_holds_aliases(serve_http, make_fake):
    server = await serve_http(make_fake(id="one", aliases=("uno",)), make_fake(id="two"))
    listed = (await server.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    models = [Model.model_validate(entry, strict=True) for entry in listed["data"]]
    assert [model.id for model in models] == ["one", "uno", "two"]
    assert all(entry["max_model_len"] == 4096 for entry in listed["data"])
    one = Model.model_validate((await server.client.get("/v1/models/uno")).json(), strict=True)
    assert one == models[1]


async def test_tokenize_and_detokenize_are_each_others_reverse(serve_http):
    server = await serve_http()
    found = (await post(server, "/tokenize", prompt="héllo", return_token_strs=True)).json()
    assert found == {
        "count": 5,
        "max_model_len": 4096,
        "tokens": [104, 233, 108, 108, 111],
        "token_strs": ["h", "é", "l", "l", "o"],
    }
    back = (await post(server, "/detokenize", tokens=found["tokens"])).json()
    assert back == {"prompt": "héllo"}


async def test_version_is_the_engines_or_ours(serve_http):
    server = await serve_http()
    found = (await server.client.get("/version")).json()
    assert found["version"] == found["rayserve_platform"] != ""


@pytest.mark.parametrize(
    ("path", "tasks", "what"),
    [
        ("/v1/chat/completions", ("embed",), "chat completions"),
        ("/v1/completions", ("embed",), "completions"),
        ("/v1/embeddings", ("generate",), "embeddings"),
        ("/v1/responses", ("generate",), "the Responses API"),
        ("/v1/messages", ("generate",), "the Messages API"),
        ("/v1/messages/count_tokens", ("generate",), "the Messages API"),
        ("/v1/score", ("embed",), "scoring"),
        ("/v2/rerank", ("embed",), "reranking"),
        ("/pooling", ("embed",), "pooling"),
        ("/classify", ("embed",), "classification"),
        ("/v1/audio/transcriptions", ("generate",), "transcription"),
    ],
)
async def test_what_the_model_cannot_do_is_400_by_name(serve_http, make_fake, path, tasks, what):
    server = await serve_http(make_fake(tasks=tasks))
    needed = {
        "chat completions": {"messages": MESSAGES},
        "completions": {"prompt": "a"},
        "scoring": {"text_1": "a", "text_2": "b"},
        "reranking": {"query": "a", "documents": ["b"]},
    }
    body = needed.get(what, {"input": "a"})
    response = await server.client.post(path, json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["message"] == f"The model 'fake' does not support {what}."
    assert error["param"] == "model"


async def test_a_model_without_a_chat_template_says_what_is_missing(serve_http, make_fake):
    class Plain(FakeRuntime):
        async def describe(self):
            (card,) = await super().describe()
            return (replace(card, chat=False),)

    server = await serve_http(Plain(make_fake()._settings))
    response = await server.client.post("/v1/chat/completions", json={"messages": MESSAGES})
    assert response.status_code == 400
    assert "has no chat template" in response.json()["error"]["message"]
    await complete(server)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/completions", b"{", "is not valid JSON"),
        ("/v1/completions", b"", "is not valid JSON"),
        ("/v1/completions", b"\xff\xfe", "is not valid JSON"),
        ("/v1/completions", b'{"prompt": NaN}', "is not valid JSON"),
        ("/v1/completions", b"[" * 5000, "is not valid JSON"),
        ("/v1/completions", b"[]", "must be a JSON object"),
        ("/v1/completions", b'"a"', "must be a JSON object"),
        ("/v1/completions", b'{"model": 3}', "'model' must be a string"),
        ("/v1/completions", b'{"prompt": "a", "stream_options": {}}', "needs 'stream' to be true"),
        ("/v1/chat/completions", b'{"messages": [], "n": 1}', "at least 1 item"),
        ("/v1/embeddings", b'{"input": "a", "dimensions": 5}', "'dimensions' must be 8"),
        (
            "/v1/completions",
            b'{"prompt": "a", "structured_outputs": {"regex": "a"}}',
            "does not decode with a guide",
        ),
    ],
)
async def test_a_body_that_cannot_be_answered_is_400_saying_why(serve_http, path, body, message):
    server = await serve_http()
    response = await server.client.post(path, content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in error["message"]
    assert isinstance(error["type"], str)


async def test_a_prompt_over_the_models_length_is_400_with_the_numbers(serve_http, make_fake):
    server = await serve_http(make_fake(max_model_len=20))
    for stream in (False, True):
        body = {"prompt": "a" * 21, "stream": stream}
        response = await server.client.post("/v1/completions", json=body)
        assert response.status_code == 400
        message = response.json()["error"]["message"]
        assert message == (
            "This model's maximum context length is 20 tokens, but the prompt has 21."
        )


async def test_an_unknown_model_in_a_body_is_404_and_a_missing_one_among_several_400(
    serve_http, make_fake
):
    server = await serve_http(make_fake(id="one"), make_fake(id="two"))
    response = await server.client.post("/v1/completions", json={"model": "x", "prompt": "a"})
    assert response.status_code == 404
    assert "Served models: one, two." in response.json()["error"]["message"]
    response = await server.client.post("/v1/completions", json={"prompt": "a"})
    assert response.status_code == 400
    assert "one, two" in response.json()["error"]["message"]
