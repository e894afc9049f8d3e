"""Answers that take long, clients that leave, and clients that show a certificate."""

import asyncio
import ssl

import grpc
import httpx

from rayserve_platform.edge.auth.authentication.certificate import _pem_of
from rayserve_platform.pb import generation_pb2
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.conftest import fake_runtime
from tests.contract.tgis.conftest import tgis


async def test_an_answer_may_take_longer_than_a_client_may_be_silent(front, behind):
    edge = await front(behind.address, idle_s=1, header_s=1)
    behind.answers.clear()
    async with edge.client.stream("POST", "/v1/x", content=b"{}") as answer:
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b"first"  # nothing waits for the end
        await asyncio.sleep(2.5)
        behind.answers.set()
        assert b"".join([piece async for piece in pieces]) == b" last"


async def test_a_client_that_leaves_is_noticed_behind_the_edge(front, behind):
    edge = await front(behind.address)
    behind.answers.clear()
    async with edge.client.stream("POST", "/v1/x", content=b"{}") as answer:
        assert await anext(answer.aiter_bytes()) == b"first"
    async with asyncio.timeout(20):
        await behind.left.wait()


async def test_a_grpc_stream_arrives_piece_by_piece_and_ends_with_its_client(
    front, certificates, eventually
):
    engine = fake_runtime(token_s=0.05)
    async with tgis(engine) as behind:
        http = str(behind.http.base_url).removeprefix("http://")
        edge = await front(http, behind.target, idle_s=1)
        trusted = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{edge.port}", trusted) as channel:
            stub = GenerationServiceStub(channel)
            asked = generation_pb2.SingleGenerationRequest(
                request=generation_pb2.GenerationRequest(text="hi"),
                params=generation_pb2.Parameters(
                    stopping=generation_pb2.StoppingCriteria(max_new_tokens=1000)
                ),
            )
            call = stub.GenerateStream(asked)
            assert await call.read()
            assert await call.read()
            call.cancel()
            await eventually(lambda: engine.running == 0)


async def test_a_head_that_drips_is_not_waited_for(front, behind):
    edge = await front(behind.address, header_s=1)
    answer = await edge.raw(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n")
    assert not answer or answer.startswith(b"HTTP/1.1 408 ")
    assert behind.requests == []


async def test_a_client_certificate_is_handed_on(front, behind, certificates):
    edge = await front(behind.address, client_ca=certificates.authority)
    trusted = ssl.create_default_context(cafile=str(certificates.authority))
    trusted.load_cert_chain(certificates.client)
    forged = {"x-forwarded-client-cert": 'Cert="forged"', "client-cert": "forged"}
    async with httpx.AsyncClient(verify=trusted, trust_env=False) as client:
        assert (await client.get(f"{edge.url}/v1/models", headers=forged)).status_code == 200
    headers = dict(behind.requests[-1]["headers"])
    from cryptography import x509

    for name in forged:
        pem = _pem_of(headers[name], xfcc=name != "client-cert")
        assert x509.load_pem_x509_certificate(pem) == certificates.client_certificate


async def test_without_a_certificate_none_is_handed_on(front, behind, certificates):
    edge = await front(behind.address, client_ca=certificates.authority)
    forged = {"x-forwarded-client-cert": 'Cert="forged"', "client-cert": "forged"}
    assert (await edge.client.get("/v1/models", headers=forged)).status_code == 200
    assert not {"x-forwarded-client-cert", "client-cert"} & set(dict(behind.requests[0]["headers"]))
