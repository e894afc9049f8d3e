"""Lists for callers who may call an adapter, and not its model."""

from typing import Any

import pytest

from tests.authorities import Issuer, bearer
from tests.contract.auth.test_adapters import declaring
from tests.contract.auth.test_edges import LISTS


@pytest.mark.parametrize("protocol", LISTS)
async def test_who_may_call_only_an_adapter_finds_it_in_the_list(
    serve: Any, issuer: Issuer, protocol: str
) -> None:
    server = await serve(protocol, ("alpha", declaring("alpha", "sql")))
    method, path, names = LISTS[protocol]
    everything = bearer(issuer.token(models=["alpha", "sql"]))
    await server.http.request(method, path, headers=everything)
    mine = await server.http.request(method, path, headers=bearer(issuer.token(models=["sql"])))
    assert mine.status_code == 200
    assert names(mine.json()) == {"sql"}
    assert "alpha" not in mine.text
