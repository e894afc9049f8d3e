"""A runtime for one caller, whose engine shares what it remembers of prompts with no other caller.

An engine that remembers the beginnings of prompts answers faster what it has seen before, and how
fast an answer begins would tell one caller what another has asked (CVE-2025-46570).
"""

import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import cast

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.messages import (
    Chunk,
    Detokenize,
    Embed,
    Embeddings,
    Generate,
    Tokenize,
    Tokens,
)
from rayserve_platform.core.principal import Principal
from rayserve_platform.core.runtime import NativeHttp, Receive, Runtime, Scope, Send
from rayserve_platform.core.scores import Score, Scores
from rayserve_platform.core.tensors import Infer, Inference

LABEL = b"rayserve_platform cache_salt"


class Salt:
    """What keeps one caller's prompts apart; the same in every replica of every ingress."""

    def __init__(self, principal: Principal) -> None:
        # As JSON, so that no two pairs are written alike.
        name = json.dumps([principal.rule, principal.id]).encode()
        self._key = hmac.digest(LABEL, name, hashlib.sha256)

    def mixed(self, own: str | None = None) -> str:
        """Return the salt, with one that the caller has chosen to keep its own prompts apart.

        Whatever that is, the result is nobody else's.
        """
        text = b"" if own is None else b"own " + own.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


class SaltedRuntime:
    """Adds the caller's salt to whatever an engine may remember.

    A runtime's own HTTP server reads bodies by itself: who writes them adds it there.
    """

    def __init__(self, runtime: Runtime, salt: Salt) -> None:
        self._runtime = runtime
        self._salt = salt

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the cards."""
        return await self._runtime.describe()

    async def check_health(self) -> None:
        """Raise if the engine can serve no more requests."""
        await self._runtime.check_health()

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Return the chunks."""
        salt = self._salt.mixed(request.cache_salt)
        return self._runtime.generate(replace(request, cache_salt=salt))

    async def embed(self, request: Embed) -> Embeddings:
        """Return one vector an input."""
        salt = self._salt.mixed(request.cache_salt)
        return await self._runtime.embed(replace(request, cache_salt=salt))

    async def score(self, request: Score) -> Scores:
        """Return scores."""
        return await self._runtime.score(request)

    async def infer(self, request: Infer) -> Inference:
        """Return tensors."""
        return await self._runtime.infer(request)

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Return tokens."""
        return await self._runtime.tokenize(request)

    async def detokenize(self, request: Detokenize) -> str:
        """Return text."""
        return await self._runtime.detokenize(request)

    async def native(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the runtime's own server answer."""
        await cast("NativeHttp", self._runtime).native(scope, receive, send)
