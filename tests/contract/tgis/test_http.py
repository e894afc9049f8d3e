"""What TGIS has over HTTP: health and metrics."""

from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub

QUERIED = (
    'tgi_request_success{kind="single",stop_reason=',
    "tgi_request_inference_duration_sum ",
    "tgi_request_inference_duration_count ",
    "tgi_request_duration_sum ",
    "tgi_request_duration_count ",
    "tgi_batch_current_size ",
)
"""What dashboards read of a replica that has answered."""


async def test_health_follows_the_engine(serve):
    server = await serve()
    answer = await server.http.get("/health")
    assert (answer.status_code, answer.content) == (200, b"")
    server.runtime.healthy = False
    answer = await server.http.get("/health")
    assert (answer.status_code, answer.json()) == (503, {"error": "unhealthy"})


async def test_metrics_count_what_was_called(serve):
    server = await serve()
    stub = GenerationServiceStub(server.channel)
    await stub.Generate(pb.BatchedGenerationRequest(requests=[pb.GenerationRequest(text="x")]))
    text = (await server.http.get("/metrics")).text
    for name in QUERIED:
        assert f"\n{name}" in text, name


async def test_metrics_can_be_switched_off(serve):
    server = await serve(ingress={"metrics": False})
    assert (await server.http.get("/metrics")).status_code == 404


async def test_nothing_else_is_there(serve):
    server = await serve()
    for path in ("/", "/v1/models", "/generate", "/docs", "/openapi.json"):
        answer = await server.http.get(path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
    answer = await server.http.post("/health")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_beside_openai_both_are_served_and_the_metrics_are_one(serve):
    server = await serve(ingress={"protocols": ["tgis", "openai"]})
    assert (await server.http.get("/v1/models")).status_code == 200
    assert "tgi_request_success" in (await server.http.get("/metrics")).text
    other = await serve(ingress={"protocols": ["openai", "tgis"]})
    assert "tgi_batch_current_size" in (await other.http.get("/metrics")).text
