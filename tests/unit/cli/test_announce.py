"""What is said of a server that came up."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from rayserve_platform.cli.announce import answers, lines


def test_a_server_that_lists_no_models_is_not_said_to_serve_none():
    assert list(lines("http://127.0.0.1:1", ("tgis",))) == [
        "ready: http://127.0.0.1:1/health, http://127.0.0.1:1/metrics, and TGIS over gRPC"
    ]


class Answers(BaseHTTPRequestHandler):
    """A KServe ingress, as far as it is asked."""

    pages: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        found = self.pages.get(self.path)
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[dict[str, Any]], str]]:
    with contextlib.ExitStack() as stack:

        def start(pages: dict[str, Any]) -> str:
            handler = type("Pages", (Answers,), {"pages": pages})
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield start


def spec(shape: list[int], datatype: str = "INT64") -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape}


def test_a_model_on_tensors_is_shown_with_its_smallest_request(serve):
    pages = {"/v2/models": {"models": ["m"]}, "/v2/models/m": {"inputs": [spec([-1, 2])]}}
    base = serve(pages)
    first, command, body = lines(base, ("kserve",))
    assert first == f"m is ready: {base}/v2"
    assert command == f"\n  curl {base}/v2/models/m/infer \\"
    expected = {"inputs": [{**spec([1, 2]), "data": [1, 1]}]}
    assert json.loads(body.strip().removeprefix("-d '").removesuffix("'")) == expected


def test_of_a_model_with_large_inputs_it_is_shown_what_they_are(serve):
    pages = {"/v2/models": {"models": ["m"]}, "/v2/models/m": {"inputs": [spec([1, 224, 224])]}}
    base = serve(pages)
    assert list(lines(base, ("kserve",)))[1] == f"\n  curl {base}/v2/models/m\n"


def test_an_ingress_that_speaks_kserve_alone_is_well_by_its_own_page(serve):
    assert answers(serve({"/v2/health/ready": {"ready": True}}))
    assert answers(serve({"/health": {}}))
    assert not answers(serve({}))
    assert not answers("http://127.0.0.1:1")
