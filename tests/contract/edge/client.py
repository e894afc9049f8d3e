"""Stock clients through TLS, with tokens: in a process of their own, since one can hold the
messages of one definition only. Prints what they got for each token and model, by client and call.

    client.py PORT AUTHORITY (TOKEN MODEL)...
"""

import contextlib
import json
import os
import queue
import ssl
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import numpy as np
import openai
import tritonclient.grpc
import tritonclient.http
from caikit_nlp_client import GrpcClient  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException

WAIT_S = 60


def told(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or what it raises."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # the test says which it must be
        return {"error": type(error).__name__, "text": str(error)}


def by_openai(port: int, authority: str, token: str, model: str) -> dict[str, Any]:
    """The token is the API key."""
    trusted = ssl.create_default_context(cafile=authority)
    client = openai.OpenAI(
        base_url=f"https://localhost:{port}/v1",
        api_key=token,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(verify=trusted, trust_env=False),
    )
    messages: Any = [{"role": "user", "content": "hi"}]
    chat = client.chat.completions

    def stream() -> str:
        parts = chat.create(model=model, messages=messages, max_tokens=3, stream=True)
        return "".join(part.choices[0].delta.content or "" for part in parts)

    def whole() -> str | None:
        return chat.create(model=model, messages=messages, max_tokens=3).choices[0].message.content

    return {
        "whole": told(whole),
        "stream": told(stream),
        "models": told(lambda: [one.id for one in client.models.list()]),
    }


def text(triton: Any) -> list[Any]:
    given = triton.InferInput("text_input", [1], "BYTES")
    given.set_data_from_numpy(np.array([b"hi"], np.object_))
    return [given]


def by_triton_over_http(port: int, authority: str, token: str, model: str) -> dict[str, Any]:
    """The token is a header of each call."""
    headers = {"Authorization": f"Bearer {token}"}
    client = tritonclient.http.InferenceServerClient(
        f"localhost:{port}",
        ssl=True,
        ssl_context_factory=lambda: ssl.create_default_context(cafile=authority),
    )
    inputs = text(tritonclient.http)

    def whole() -> str:
        answer = client.infer(model, inputs, headers=headers)
        return str(answer.as_numpy("text_output")[0].decode())

    return {
        "whole": told(whole),
        "metadata": told(lambda: client.get_model_metadata(model, headers=headers)["name"]),
        "ready": told(lambda: client.is_model_ready(model, headers=headers)),
        "live": told(client.is_server_live),
    }


def by_triton_over_grpc(port: int, authority: str, token: str, model: str) -> dict[str, Any]:
    """The token is metadata of each call."""
    headers = {"authorization": f"Bearer {token}"}
    client = tritonclient.grpc.InferenceServerClient(
        f"localhost:{port}", ssl=True, root_certificates=authority
    )
    inputs = text(tritonclient.grpc)

    def whole() -> str:
        answer = client.infer(model, inputs, headers=headers)
        return str(answer.as_numpy("text_output")[0].decode())

    def stream() -> str:
        answered: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answered.put((result, error)), headers=headers)
        try:
            # A stream that is refused may end before anything is written to it.
            with contextlib.suppress(InferenceServerException):
                client.async_stream_infer(model, inputs)
            result, error = answered.get(timeout=WAIT_S)
        finally:
            client.stop_stream()
        if error is not None:
            raise error
        return str(result.as_numpy("text_output")[0].decode())

    return {
        "whole": told(whole),
        "stream": told(stream),
        "metadata": told(lambda: client.get_model_metadata(model, headers=headers).name),
        "live": told(client.is_server_live),
    }


class Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the token to the metadata of each call, reflection's too."""

    def __init__(self, token: str) -> None:
        self._own = ("authorization", f"Bearer {token}")

    def _signed(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self._own])

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._signed(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._signed(details), request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(self._signed(details), requests)


def by_caikit(port: int, authority: str, token: str, model: str) -> dict[str, Any]:
    """It takes no metadata: gRPC's own interceptor adds the token to its channel."""

    class WithToken(GrpcClient):  # type: ignore[misc]
        def _make_channel(self, *args: Any, **options: Any) -> Any:
            return grpc.intercept_channel(super()._make_channel(*args, **options), Bearer(token))

    client = WithToken("localhost", port, ca_cert=authority)
    return {
        "whole": told(lambda: client.generate_text(model, "hi", max_new_tokens=3)),
        "stream": told(lambda: "".join(client.generate_text_stream(model, "hi", max_new_tokens=3))),
    }


def main(port: str, authority: str, *asked: str) -> None:
    clients = (by_openai, by_triton_over_http, by_triton_over_grpc, by_caikit)
    got = []
    for token, model in zip(asked[::2], asked[1::2], strict=True):
        given = (int(port), authority, token, model)
        got.append({client.__name__: told(partial(client, *given)) for client in clients})
    print(json.dumps(got), flush=True)  # noqa: T201  # its output is read by the test
    # As in the tests of Caikit's client, which may not end otherwise.
    os._exit(0)


main(*sys.argv[1:])
