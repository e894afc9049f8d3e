"""The gRPC edge: everything that happens to a call before and after its protocol sees it.

Serve finds the method of an ingress by an RPC's name and hands it the message and its own context
(`ray.serve.grpc_util.RayServegRPCContext`), which takes a status and trailing metadata, but can't
abort. So a unary call that fails sets the status and returns nothing; a stream has to raise, since
one that has sent nothing yet would end as OK.
"""

import asyncio
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import grpc

from rayserve_platform.core.errors import Code, PlatformError, Refusal, internal_error
from rayserve_platform.core.principal import ACCESS
from rayserve_platform.core.usage import METER
from rayserve_platform.edge.accounts import Accounts
from rayserve_platform.edge.auth.gate import Gate, Session, entering, note
from rayserve_platform.edge.auth.rpc import credentials_of, paths_of, request_of, stripped
from rayserve_platform.edge.limits import Admission
from rayserve_platform.edge.observe import Record, finish, in_progress, request_id
from rayserve_platform.edge.quotas.meter import RequestMeter

log = logging.getLogger("rayserve.edge")

STATUS: dict[Code, grpc.StatusCode] = {
    Code.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    Code.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Code.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}


class Failed(Exception):
    """Ends a stream whose status has been set; its text is the status's details."""


class Nothing:
    """Stands for the message that a failed unary call does not have."""

    def SerializeToString(self) -> bytes:
        """Return no bytes: Serve asks every answer for its own."""
        return b""


@dataclass(slots=True, kw_only=True)
class Call:
    """One RPC.

    Args:
        request: the message, or an asynchronous iterator of messages.
        metadata: what the client sent, without what only the platform may set and, where tokens are
            checked, credentials; of a key that was sent several times, the last value.
        session: who asks, and what they may do, where tokens are checked.
        renew: finds that out anew, as for each message of a stream: it may last for days.
    """

    method: str
    request: Any
    metadata: Mapping[str, str]
    record: Record
    session: Session | None = None
    renew: Callable[[], Awaitable[None]] | None = None

    @property
    def request_id(self) -> str:
        """The id in logs and errors."""
        return self.record.request_id


Unary = Callable[[Call], Awaitable[Any]]
Stream = Callable[[Call], AsyncGenerator[Any, None]]


class RpcProtocol(Protocol):
    """A wire API over gRPC, as the edge sees it."""

    name: str
    exempt: bool
    """Whether its calls are answered whatever the load, and leave no line in the access log."""
    probes: frozenset[str]
    """RPCs that tell of liveness and readiness: answered to everybody, token or not."""

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of its services."""
        ...

    @property
    def unary(self) -> Mapping[str, Unary]:
        """What answers with one message, by RPC name."""
        ...

    @property
    def streams(self) -> Mapping[str, Stream]:
        """What answers with a stream, by RPC name."""
        ...

    def error(self, error: PlatformError) -> tuple[grpc.StatusCode, str]:
        """Return status and details of an error in the protocol's own words."""
        ...


class RpcEdge:
    """Answers every RPC of an ingress replica."""

    def __init__(
        self,
        protocols: Sequence[RpcProtocol],
        admission: Admission,
        *,
        access_log: bool,
        gate: Gate | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self._gate = gate
        self._accounts = accounts or Accounts()
        self._paths = paths_of([name for protocol in protocols for name in protocol.services])
        self._admission = admission
        self._access_log = access_log
        self._unary = {name: (p, h) for p in protocols for name, h in p.unary.items()}
        self._streams = {name: (p, h) for p in protocols for name, h in p.streams.items()}

    async def unary(self, name: str, request: Any, context: Any) -> Any:
        """Answer an RPC with one message."""
        if name not in self._unary:
            return _fail(context, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        protocol, handler = self._unary[name]
        call = self._call(protocol, name, request, context)
        with self._observed(protocol, call):
            try:
                await self._enter(protocol, call, context)
                return await self._settled(protocol, call, handler, context)
            except Exception as error:  # noqa: BLE001  # whatever it is, `_refuse` logs it
                return _refuse(protocol, call, context, error)

    async def stream(self, name: str, request: Any, context: Any) -> AsyncGenerator[Any, None]:
        """Answer an RPC with a stream."""
        if name not in self._streams:
            _fail(context, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            raise Failed("Method not found!")
        protocol, handler = self._streams[name]
        call = self._call(protocol, name, request, context)
        with self._observed(protocol, call):
            try:
                await self._enter(protocol, call, context)
                async with AsyncExitStack() as stack:
                    meter = None
                    if not protocol.exempt:
                        meter = stack.enter_context(self._accounts.metered(call.record))
                        await self._admit(call, meter, stack)
                    # Closed with the call, so that a client that leaves ends the work behind it.
                    messages = await stack.enter_async_context(aclosing(handler(call)))
                    async for message in messages:
                        if call.session is not None:
                            await call.session.settle()
                        yield message
                        # Whoever iterates may do so from another task than before.
                        ACCESS.set(call.session)
                        METER.set(meter)
                    _tell(context, call, meter)
            except Exception as error:  # noqa: BLE001  # whatever it is, `_refuse` logs it
                _refuse(protocol, call, context, error)
                raise Failed(context.details()) from None

    async def _settled(
        self, protocol: RpcProtocol, call: Call, handler: Unary, context: Any
    ) -> Any:
        """Return a call's answer, once it is known that its caller may have it."""
        if protocol.exempt:
            answer = await handler(call)
        else:
            with self._admission.permit(), self._accounts.metered(call.record) as meter:
                answer = await handler(call)
                _tell(context, call, meter)
        if call.session is not None:
            await call.session.settle()
        return answer

    async def _enter(self, protocol: RpcProtocol, call: Call, context: Any) -> None:
        """Find out who asks, unless everybody may."""
        if self._gate is None or call.method in protocol.probes:
            ACCESS.set(None)
            return
        sent = context.invocation_metadata()
        path = self._paths.get(call.method, f"/{call.method}")
        request = request_of(sent, path, context.peer(), id=call.request_id, protocol=protocol.name)
        with entering(call.record):
            credentials = credentials_of(sent)
            call.session = await self._gate.enter(credentials, request)
        call.renew = partial(self._gate.renew, call.session, credentials, request)
        call.record.principal = call.session.principal
        ACCESS.set(call.session)

    async def _admit(self, call: Call, meter: RequestMeter | None, stack: AsyncExitStack) -> None:
        """Take a place for a call; where it sends a stream, for each message until the next."""
        if isinstance(call.request, AsyncIterable):
            admitted = aclosing(self._admitted(call, call.request, meter))
            call.request = await stack.enter_async_context(admitted)
        else:
            stack.enter_context(self._admission.permit())

    async def _admitted(
        self, call: Call, requests: AsyncIterable[Any], meter: RequestMeter | None
    ) -> AsyncGenerator[Any, None]:
        is_first = True
        async for request in requests:
            if call.renew is not None and not is_first:
                await call.renew()
            is_first = False
            with self._admission.permit():
                yield request
            if meter is not None:
                meter.renew()

    def _call(self, protocol: RpcProtocol, name: str, request: Any, context: Any) -> Call:
        guard = None if self._gate is None else self._gate.guard
        metadata = stripped(context.invocation_metadata(), guard)
        sent = metadata.get("x-request-id", "")
        record = Record(
            protocol=protocol.name,
            request_id=request_id(sent.encode() if isinstance(sent, str) else sent),
            route=name,
            code=grpc.StatusCode.OK.name,
        )
        return Call(method=name, request=request, metadata=metadata, record=record)

    @contextmanager
    def _observed(self, protocol: RpcProtocol, call: Call) -> Iterator[None]:
        running = in_progress(protocol.name)
        running.inc()
        began = time.monotonic()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            call.record.client_gone = True
            call.record.code = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            running.dec()
            if call.session is not None:
                call.session.finish(call.record)
            duration_s = time.monotonic() - began
            access_log = self._access_log and not protocol.exempt
            finish(call.record, duration_s=duration_s, access_log=access_log)
            if not protocol.exempt or call.record.refused_by:
                self._accounts.settle(call.record, duration_s=duration_s)


def _refuse(protocol: RpcProtocol, call: Call, context: Any, error: Exception) -> Nothing:
    """Turn whatever a protocol raised into a status; the unknown is logged with the request id."""
    if isinstance(error, PlatformError):
        code, details = protocol.error(error)
        retry_after_s = error.retry_after_s
    else:
        log.error("request %s failed", call.request_id, exc_info=error)
        code, details = protocol.error(internal_error())
        details = f"{details} (request id {call.request_id})"
        retry_after_s = None
    call.record.code = code.name
    trailing = [("x-request-id", call.request_id)]
    if retry_after_s is not None:
        trailing.append(("retry-after", str(max(1, round(retry_after_s)))))
    if isinstance(error, Refusal):
        note(call.record, error)
        trailing += error.headers
    context.set_trailing_metadata(trailing)
    return _fail(context, code, details)


def _tell(context: Any, call: Call, meter: RequestMeter | None) -> None:
    """Tell the caller its request's id, and what it has left."""
    left = [] if meter is None else meter.headers
    context.set_trailing_metadata([("x-request-id", call.request_id), *left])


def _fail(context: Any, code: grpc.StatusCode, details: str) -> Nothing:
    context.set_code(code)
    context.set_details(details)
    return Nothing()
