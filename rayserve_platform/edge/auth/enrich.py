"""The second phase: what is fetched about a request besides.

Unlike Authorino's, a source that fails does not leave a hole: a condition on what is missing might
hold. The request is answered UNAVAILABLE.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.authentication.signed import SignedToken
from rayserve_platform.edge.auth.authority import Answered
from rayserve_platform.edge.auth.calls import Caller
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.denial import Denial, unavailable
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault
from rayserve_platform.edge.auth.identify import Identification, Way
from rayserve_platform.edge.auth.rule import Compiled, by_priority
from rayserve_platform.edge.auth.sources import Sources
from rayserve_platform.edge.auth.verdict import Rejected, Unavailable
from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.auth.rules import Metadata, UserInfo

PHASE = "metadata"

Fetch = Callable[[Credentials, Document], Awaitable[Any]]


class Enrichment:
    """All metadata rules of a policy."""

    def __init__(self, policy: Policy, sources: Sources, ways: Identification) -> None:
        self._sources = sources
        self._challenges = ways.challenges
        self._groups = by_priority(
            Compiled(name, rule, policy.patterns, PHASE, self._fetch(name, rule, ways))
            for name, rule in policy.metadata.items()
        )

    def __bool__(self) -> bool:
        return bool(self._groups)

    def _fetch(self, name: str, rule: Metadata, ways: Identification) -> Fetch:
        if rule.http is not None:
            where = f"{PHASE}.{name}.http"
            caller = Caller(rule.http, self._sources.authorities, self._sources.secret, where)
            return lambda _, document: caller.send(document)
        assert rule.userInfo is not None
        info, source = rule.userInfo, rule.userInfo.identitySource
        if source is None:
            return lambda credentials, _: self._user_info(credentials, None, info, info.userInfoUrl)
        way = ways.ways[source]
        assert isinstance(way.run.method, SignedToken)
        keys = way.run.method.keys

        async def of_issuer(credentials: Credentials, document: Document) -> Any:
            if document.rule != source:
                return None
            return await self._user_info(credentials, way.run, info, keys.user_info_url)

        return of_issuer

    async def _user_info(
        self, credentials: Credentials, way: Way | None, info: UserInfo, url: str | None
    ) -> Any:
        """Ask the issuer about the owner of the token that was sent."""
        header = credentials.header("authorization")
        if way is not None:
            token = credentials.find(way.source)
            header = f"Bearer {token}" if token else None
        if url is None:
            raise Unavailable("the issuer names no place for user info")
        if header is None:
            return None
        headers = {"authorization": header, "accept": "application/json"}
        try:
            return await self._sources.authorities.ask(
                "GET", url, headers=headers, timeout_ms=info.timeout
            )
        except Answered as answer:
            if answer.status == 401:
                raise Rejected(str(answer)) from None
            raise

    async def enrich(self, credentials: Credentials, document: Document) -> None:
        """Write what is found into the document.

        Raises:
            Denial: UNAVAILABLE when something can't be fetched; UNAUTHENTICATED when the issuer
                takes the token no longer.
        """
        for group in self._groups:
            await asyncio.gather(*(self._one(rule, credentials, document) for rule in group))

    async def _one(
        self, rule: Compiled[Fetch], credentials: Credentials, document: Document
    ) -> None:
        try:
            if not rule.applies(document):
                document.tell(f"{rule.where}: does not apply")
                return
            ask = lambda: rule.run(credentials, document)  # noqa: E731
            found = await rule.remembered(document, ask)
        except Rejected as rejected:
            document.tell(f"{rule.where}: {rejected}")
            raise self._invalid(rule.where, str(rejected)) from None
        except (Unavailable, EvaluationFault) as failure:
            document.tell(f"{rule.where}: {failure}")
            raise unavailable(rule.where, str(failure)) from None
        document.metadata[rule.name] = found
        document.tell(f"{rule.where}: fetched")

    def _invalid(self, where: str, reason: str) -> Denial:
        return Denial(
            Code.UNAUTHENTICATED,
            "The credentials are not valid.",
            rule=where,
            reason=reason,
            headers=[("www-authenticate", one) for one in self._challenges],
        )
