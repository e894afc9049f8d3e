"""A stored response is its caller's: for others there is none."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.authorities import Issuer
from tests.contract.auth.conftest import runtime

CREATE, READ = "POST /v1/responses", "GET /v1/responses/{response_id}"
CANCEL = "POST /v1/responses/{response_id}/cancel"


class Store:
    """A runtime with a responses store as vLLM's: an id that the request chooses opens it."""

    def __init__(self) -> None:
        self._fake = runtime("alpha")
        self.names = ("alpha",)
        self._settings = self._fake._settings
        self.kept: dict[str, Any] = {}
        self.asked: list[str] = []

    async def describe(self) -> Any:
        native = frozenset({CREATE, READ, CANCEL})
        return tuple(replace(card, native=native) for card in await self._fake.describe())

    async def check_health(self) -> None:
        pass

    async def native(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        parts = scope["path"].split("/")
        self.asked.append(scope["path"])
        if len(parts) == 3:
            content = orjson.loads(body)
            self.kept[content["request_id"]] = content
            answer = {"id": content["request_id"], "output": content["input"]}
        else:
            answer = {"id": parts[3], "output": self.kept[parts[3]]["input"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": orjson.dumps(answer)})


@pytest.fixture
def as_(issuer: Issuer) -> Any:
    """Makes the headers of a user."""

    def make(user: str) -> dict[str, str]:
        return {"authorization": f"Bearer {issuer.token(sub=user, models=['alpha'])}"}

    return make


ASKED = {"model": "alpha", "input": "a secret", "request_id": "resp_chosen"}


async def test_a_stored_response_is_found_by_its_caller_alone(serve: Any, as_: Any) -> None:
    store = Store()
    http = (await serve("openai", store)).http
    made = (await http.post("/v1/responses", json=ASKED, headers=as_("alice"))).json()
    assert made["id"] in store.kept
    assert "resp_chosen" not in store.kept
    path = f"/v1/responses/{made['id']}"
    mine = await http.get(path, headers=as_("alice"))
    assert mine.json()["output"] == "a secret"
    assert (await http.post(f"{path}/cancel", headers=as_("alice"))).status_code == 200
    before = len(store.asked)
    for asking in (http.get(path, headers=as_("bob")),
                   http.post(f"{path}/cancel", headers=as_("bob"))):  # fmt: skip
        theirs = await asking
        unknown = await http.get("/v1/responses/resp_none", headers=as_("bob"))
        assert theirs.status_code == unknown.status_code == 404
        assert theirs.text.replace(made["id"], "resp_none") == unknown.text
        assert theirs.json()["error"]["message"] == f"Response with id '{made['id']}' not found."
    assert len(store.asked) == before


async def test_nobody_goes_on_from_anothers_response(serve: Any, as_: Any) -> None:
    store = Store()
    http = (await serve("openai", store)).http
    made = (await http.post("/v1/responses", json=ASKED, headers=as_("alice"))).json()
    following = {**ASKED, "previous_response_id": made["id"]}
    refused = await http.post("/v1/responses", json=following, headers=as_("bob"))
    assert refused.status_code == 404
    assert len(store.kept) == 1
    allowed = await http.post("/v1/responses", json=following, headers=as_("alice"))
    assert allowed.status_code == 200
    assert len({made["id"], allowed.json()["id"], "resp_chosen"} & set(store.kept)) == 2
