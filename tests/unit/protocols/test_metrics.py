"""`/metrics` of an ingress, whichever protocols it speaks."""

import itertools

import pytest
from prometheus_client.parser import text_string_to_metric_families

PROTOCOLS = ("openai", "caikit", "tgis")
ORDERS = [order for n in (1, 2, 3) for order in itertools.permutations(PROTOCOLS, n)]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_every_ingress_has_metrics_for_get_alone(serve_http, order):
    server = await serve_http(ingress={"protocols": order})
    await server.client.get("/metrics")
    response = await server.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'route="/metrics"' in response.text
    assert (await server.client.head("/metrics")).status_code == 200
    refused = await server.client.post("/metrics")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("protocol", "key"), [("openai", "error"), ("caikit", "detail"), ("tgis", "error")]
)
async def test_metrics_that_are_switched_off_are_404_in_the_protocols_words(
    serve_http, protocol, key
):
    server = await serve_http(ingress={"protocols": [protocol], "metrics": False})
    response = await server.client.get("/metrics")
    assert response.status_code == 404
    assert list(response.json()) == [key]


async def test_metrics_count_requests_by_route_model_and_code(serve_http, make_fake):
    server = await serve_http(make_fake(id="measured"))
    for name in ("measured", "measured", "made-up-name"):
        body = {"model": name, "prompt": "a"}
        await server.client.post("/v1/completions", json=body)
    response = await server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.labels["route"], sample.labels["model"], sample.labels["code"]): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name == "rayserve_requests_total"
    }
    assert found["/v1/completions", "measured", "200"] == 2
    assert found["/v1/completions", "", "404"] >= 1
    assert "made-up-name" not in response.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_metrics_of_an_engine_elsewhere_are_added_to_the_edges_own(
    serve_http, make_native, protocol
):
    native = make_native("GET /metrics", answer=(b"vllm:num_requests_running 3\n",))
    server = await serve_http(native, ingress={"protocols": [protocol]})
    text = (await server.client.get("/metrics")).text
    assert "vllm:num_requests_running 3" in text.splitlines()
    assert "rayserve_requests_total" in text
    assert "process_cpu_seconds_total" not in text


async def test_metrics_of_an_engine_in_this_process_are_in_its_registry(serve_http, make_native):
    native = make_native("GET /metrics")
    server = await serve_http(native, engine_elsewhere=False)
    text = (await server.client.get("/metrics")).text
    assert "process_cpu_seconds_total" in text
    assert native.calls == []
