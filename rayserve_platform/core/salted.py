"""A runtime for one caller, whose engine shares what it remembers of prompts with no other caller.

An engine that remembers the beginnings of prompts answers faster what it has seen before, and how
fast an answer begins would tell one caller what another has asked (CVE-2025-46570).
"""

import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from rayserve_platform.core.messages import Chunk, Embed, Embeddings, Generate
from rayserve_platform.core.principal import Principal
from rayserve_platform.core.runtime import Runtime
from rayserve_platform.core.wrapped import WrappedRuntime

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


class SaltedRuntime(WrappedRuntime):
    """Adds the caller's salt to whatever an engine may remember.

    A runtime's own HTTP server reads bodies by itself: who writes them adds it there.
    """

    def __init__(self, runtime: Runtime, salt: Salt) -> None:
        super().__init__(runtime)
        self._salt = salt

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Chunk], None]:
        """Return the chunks."""
        salt = self._salt.mixed(request.cache_salt)
        return self._runtime.generate(replace(request, cache_salt=salt))

    async def embed(self, request: Embed) -> Embeddings:
        """Return one vector an input."""
        salt = self._salt.mixed(request.cache_salt)
        return await self._runtime.embed(replace(request, cache_salt=salt))
