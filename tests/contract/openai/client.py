"""Talks to a server as users do, with the official `openai` package; prints what it got as JSON.

    python client.py BASE_URL CASE...

In a process of its own, so that nothing of the server's process can help it.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import openai
from openai import AsyncOpenAI, OpenAI

MESSAGES: Any = [
    {"role": "system", "content": "You know animals."},
    {"role": "user", "content": [{"type": "text", "text": "Tell me about foxes."}]},
]
CASES: dict[str, Callable[[OpenAI], Any]] = {}


def case(function: Callable[[OpenAI], Any]) -> Callable[[OpenAI], Any]:
    CASES[function.__name__] = function
    return function


def raised(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        answer = call()
    except openai.APIStatusError as error:
        return {
            "type": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "message": error.message,
            "request_id": error.request_id,
            "retry_after": error.response.headers.get("retry-after"),
        }
    except openai.APIError as error:
        return {"type": type(error).__name__, "message": error.message}
    return {"type": None, "answer": repr(answer)}


@case
def chat(client: OpenAI) -> Any:
    answer = client.chat.completions.create(model="fake", messages=MESSAGES, max_tokens=30)
    return {**answer.to_dict(), "request_id": answer._request_id}


@case
def chat_of_every_option(client: OpenAI) -> Any:
    answer = client.chat.completions.create(
        model="fake",
        messages=MESSAGES,
        max_completion_tokens=20,
        temperature=0.5,
        top_p=0.9,
        n=2,
        seed=7,
        stop=["dog"],
        frequency_penalty=0.1,
        presence_penalty=0.1,
        logit_bias={"50": -1},
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "text"},
        user="someone",
        store=False,
        extra_body={"ignore_eos": True, "min_tokens": 5},
    )
    return answer.to_dict()


@case
def chat_stream(client: OpenAI) -> Any:
    stream = client.chat.completions.create(
        model="fake", messages=MESSAGES, max_tokens=30, stream=True
    )
    return [chunk.to_dict() for chunk in stream]


@case
def chat_stream_with_usage(client: OpenAI) -> Any:
    stream = client.chat.completions.create(
        model="fake",
        messages=MESSAGES,
        max_tokens=30,
        stream=True,
        stream_options={"include_usage": True},
    )
    return [chunk.to_dict() for chunk in stream]


@case
def chat_stream_helper(client: OpenAI) -> Any:
    with client.chat.completions.stream(model="fake", messages=MESSAGES, max_tokens=30) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    return {"kinds": sorted(set(kinds)), "text": final.choices[0].message.content}


@case
def chat_async(client: OpenAI) -> Any:
    async def run() -> list[str]:
        async with AsyncOpenAI(base_url=client.base_url, api_key="none") as own:
            stream = await own.chat.completions.create(
                model="fake", messages=MESSAGES, max_tokens=30, stream=True
            )
            return [chunk.choices[0].delta.content or "" async for chunk in stream]

    return "".join(asyncio.run(run()))


@case
def completion(client: OpenAI) -> Any:
    prompts = ["Once", "Twice"]
    return client.completions.create(model="fake", prompt=prompts, n=2, logprobs=1).to_dict()


@case
def completion_stream(client: OpenAI) -> Any:
    stream = client.completions.create(model="fake", prompt=["Once", "Twice"], n=2, stream=True)
    texts: dict[int, str] = {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    return [texts[index] for index in sorted(texts)]


@case
def embeddings(client: OpenAI) -> Any:
    """Without a wish the client asks for base64 and decodes it."""
    return client.embeddings.create(model="fake", input=["a", "b"]).to_dict()


@case
def embeddings_as_floats(client: OpenAI) -> Any:
    answer = client.embeddings.create(model="fake", input=["a", "b"], encoding_format="float")
    return answer.to_dict()


@case
def embeddings_as_base64(client: OpenAI) -> Any:
    answer = client.embeddings.create(model="fake", input=["a", "b"], encoding_format="base64")
    return answer.to_dict()


@case
def models(client: OpenAI) -> Any:
    return [model.to_dict() for model in client.models.list()]


@case
def model(client: OpenAI) -> Any:
    return client.models.retrieve("org/fake").to_dict()


@case
def unknown_model(client: OpenAI) -> Any:
    return raised(lambda: client.chat.completions.create(model="gpt-9", messages=MESSAGES))


@case
def unknown_model_retrieved(client: OpenAI) -> Any:
    return raised(lambda: client.models.retrieve("gpt-9"))


@case
def bad_request(client: OpenAI) -> Any:
    return raised(
        lambda: client.chat.completions.create(model="fake", messages=MESSAGES, temperature=9)
    )


@case
def unsupported(client: OpenAI) -> Any:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {}}}
    return raised(
        lambda: client.chat.completions.create(model="fake", messages=MESSAGES, tools=[tool])
    )


@case
def plain_call(client: OpenAI) -> Any:
    return raised(lambda: client.chat.completions.create(model="fake", messages=MESSAGES))


@case
def retried_call(client: OpenAI) -> Any:
    own = client.with_options(max_retries=1)
    return raised(lambda: own.completions.create(model="fake", prompt="a"))


@case
def stream_that_fails(client: OpenAI) -> Any:
    texts: list[str] = []

    def read() -> None:
        stream = client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
        texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    return {**raised(read), "text": "".join(texts)}


@case
def timeout(client: OpenAI) -> Any:
    own = client.with_options(timeout=0.5)
    return raised(lambda: own.chat.completions.create(model="fake", messages=MESSAGES))


@case
def stream_left(client: OpenAI) -> Any:
    stream = client.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
    with stream:
        for chunk in stream:
            if chunk.choices[0].delta.content:
                return chunk.choices[0].delta.content
    return None


def main(base_url: str, *names: str) -> None:
    with OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0) as client:
        print(json.dumps({name: CASES[name](client) for name in names}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
