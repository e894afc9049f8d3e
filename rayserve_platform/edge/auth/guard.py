"""The decision: credentials, request and model in; a principal or a refusal out.

Phases run as Authorino runs them: authentication, metadata, authorization (once for each model),
response, callbacks. Everything that can't be decided is refused.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from prometheus_client import Counter

from rayserve_platform.core.errors import Code
from rayserve_platform.core.principal import Principal, Target
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.authentication import identity
from rayserve_platform.edge.auth.authorize import Permission, forbidden
from rayserve_platform.edge.auth.begun import within
from rayserve_platform.edge.auth.conditions import Conditions
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.denial import Denial, unavailable
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.enrich import Enrichment
from rayserve_platform.edge.auth.expression import EvaluationFault
from rayserve_platform.edge.auth.identify import Identification, name_of
from rayserve_platform.edge.auth.keystore import Key, KeyStore
from rayserve_platform.edge.auth.respond import Responses
from rayserve_platform.edge.auth.sources import Sources
from rayserve_platform.edge.auth.tell import Callbacks
from rayserve_platform.edge.headers import folded
from rayserve_platform.settings.auth.app import Auth
from rayserve_platform.settings.auth.policy import Policy

log = logging.getLogger("rayserve.auth")

T = TypeVar("T")

DECISIONS = Counter(
    "rayserve_auth_decisions",
    "Decisions on tokens and models: `allowed`, or the code of the refusal, by the rule that knew "
    "the caller or refused.",
    ("rule", "result"),
)

SCOPE = "key scope"
LOAD = "load"


class Known:
    """A request whose caller is known.

    Args:
        principal: without the headers that depend on a model.
        free: the policy does not apply to it.
    """

    def __init__(
        self, document: Document, principal: Principal, key: Key | None, *, free: bool = False
    ) -> None:
        self.document = document
        self.principal = principal
        self.key = key
        self.free = free


class Guard:
    """Decides by one policy.

    Args:
        keys: the platform's own keys; the guard starts and stops them.

    Raises:
        PolicyFault: when the policy can't be used.
    """

    def __init__(self, settings: Auth, policy: Policy, keys: KeyStore | None = None) -> None:
        self._budget_s = settings.budget_s
        self._sources = Sources(settings, policy.namespace, keys)
        self._when = Conditions(policy.when, policy.patterns, "when")
        self._ways = Identification(policy, self._sources)
        self._metadata = Enrichment(policy, self._sources, self._ways)
        self._permission = Permission(policy, self._sources)
        self.responses = Responses(policy)
        self._callbacks = Callbacks(policy, self._sources)
        self._load = Conditions(settings.load, policy.patterns, LOAD)
        self.secret_headers = _secret_headers(policy)
        self.secret_parameters = frozenset(
            rule.credentials.queryString.name
            for rule in policy.authentication.values()
            if rule.credentials.queryString is not None
        )

    async def start(self) -> None:
        """Read keys and follow Secrets. What can't be reached is tried again for ever."""
        if self._sources.keys is not None:
            await self._sources.keys.start()
        await self._ways.start()
        await self._sources.rego.start()

    async def stop(self) -> None:
        """End all that `start` and decisions began."""
        await self._callbacks.stop()
        await self._ways.stop()
        await self._permission.stop()
        if self._sources.keys is not None:
            await self._sources.keys.stop()
        await self._sources.stop()

    async def decide(
        self,
        credentials: Credentials,
        request: Request,
        target: Target | None,
        note: Callable[[str], None] | None = None,
    ) -> Principal:
        """Return who asks, if they may; without a target only that they are known is decided.

        Raises:
            Denial: if they may not, or it can't be said now.
            PlatformError: INVALID_ARGUMENT when there are several credentials in one place.
        """
        document = Document(request, note)
        known = await self.identify(credentials, document)
        return known.principal if target is None else await self.permit(known, target)

    async def identify(self, credentials: Credentials, document: Document) -> Known:
        """Run authentication and metadata; raises as `decide`."""
        principal = None
        try:
            if not self._applies(document):
                return Known(document, Principal(id="anonymous"), None, free=True)
            if self._ways.waits or self._metadata:
                found = await self._bounded("authentication", self._find_out(credentials, document))
            else:
                found = await self._ways.identify(credentials, document)
            principal = _principal(document, found.key)
            _check_protocol(found.key, document.request.protocol)
            return Known(document, principal, found.key)
        except Denial as denial:
            told = self._told(denial, document)
            told.principal = principal
            raise told from None

    def _applies(self, document: Document) -> bool:
        try:
            applies = self._when.hold(document)
        except EvaluationFault as fault:
            document.tell(f"when: refused: {fault}")
            raise forbidden("when", str(fault)) from None
        if not applies:
            document.tell("when: the policy does not apply")
        return applies

    async def permit(self, known: Known, target: Target) -> Principal:
        """Run authorization and response for one model; raises as `decide`."""
        document = known.document.of(target)
        try:
            if known.free:
                if target.operation == "load":
                    self._check_free_loading(document)
                return known.principal
            _check_model(known.key, target)
            if self._permission.waits:
                await self._bounded("authorization", self._permission.check(document))
            else:
                await self._permission.check(document)
            if target.operation == "load":
                self._check_loading(known.key, document)
        except Denial as denial:
            told = self._told(denial, document)
            # Never the caller's text, as the name of an adapter or of what to load may be.
            told.model = target.model if target.operation == "call" else ""
            told.principal = known.principal
            raise told from None
        _count(known.principal.rule, "allowed")
        headers = self.responses.headers(document)
        metadata = self.responses.metadata(document)
        if not headers and not metadata:
            return known.principal
        return replace(known.principal, headers=headers, metadata=metadata)

    def _check_loading(self, key: Key | None, document: Document) -> None:
        """Refuse whoever was given no right to load models, besides that to call them."""
        if key is not None:
            if not key.load:
                raise forbidden(SCOPE, f"the key {key.id} is not for loading models")
        elif self._load:
            self._check_patterns_of_loading(document)
        elif not self._permission.grants_loading(document):
            raise forbidden(LOAD, "neither auth.load nor a SubjectAccessReview gives the right")

    def _check_free_loading(self, document: Document) -> None:
        """Where the policy does not apply, only `auth.load` can give the right."""
        if not self._load:
            raise forbidden(LOAD, "the policy does not apply, and there is no auth.load")
        self._check_patterns_of_loading(document)

    def _check_patterns_of_loading(self, document: Document) -> None:
        try:
            may_load = self._load.hold(document)
        except EvaluationFault as fault:
            raise forbidden(LOAD, str(fault)) from None
        if not may_load:
            raise forbidden(LOAD, "the patterns of auth.load don't hold")

    def _told(self, denial: Denial, document: Document) -> Denial:
        """Count a refusal, write down why, and return it as the policy wants it to look."""
        _count(denial.rule, denial.code.value)
        level = logging.WARNING if denial.code is Code.UNAVAILABLE else logging.INFO
        who = "" if document.identity is None else name_of(document.identity)
        line = "request %s of '%s' is refused by %s: %s"
        log.log(level, line, document.request.id, who, denial.rule, denial.reason)
        return self.responses.dressed(denial, document)

    def tell(self, document: Document) -> None:
        """Run the callbacks, after a decision."""
        self._callbacks.tell(document)

    async def _find_out(self, credentials: Credentials, document: Document) -> identity.Known:
        found = await self._ways.identify(credentials, document)
        await self._metadata.enrich(credentials, document)
        return found

    async def _bounded(self, phase: str, deciding: Coroutine[Any, Any, T]) -> T:
        """Decide within the budget."""
        try:
            return await within(self._budget_s, deciding)
        except TimeoutError:
            raise unavailable(phase, f"no decision within {self._budget_s:g} s") from None


@cache
def _decisions(rule: str, result: str) -> Counter:
    return DECISIONS.labels(rule, result)


def _count(rule: str, result: str) -> None:
    _decisions(rule, result).inc()


def _principal(document: Document, key: Key | None) -> Principal:
    claims = document.identity or {}
    return Principal(
        id=name_of(claims),
        rule=document.rule,
        groups=_groups(claims),
        claims=claims,
        key_id=None if key is None else key.id,
    )


def _groups(claims: Mapping[str, Any]) -> tuple[str, ...]:
    found = claims.get("groups")
    if not isinstance(found, list | tuple):
        return ()
    return tuple(group for group in found if isinstance(group, str))


def _check_protocol(key: Key | None, protocol: str) -> None:
    if key is not None and key.protocols is not None and protocol not in key.protocols:
        raise forbidden(SCOPE, f"the key {key.id} is not for {protocol}")


def _check_model(key: Key | None, target: Target) -> None:
    if key is not None and key.models is not None:
        name = target.adapter or target.model
        if name not in key.models:
            raise forbidden(SCOPE, f"the key {key.id} is not for {name!r}")


def _secret_headers(policy: Policy) -> frozenset[str]:
    """Return the headers in which credentials come: nothing for an engine to see."""
    names = {"authorization", "cookie", "proxy-authorization"}
    for rule in policy.authentication.values():
        if rule.credentials.customHeader is not None:
            names.add(rule.credentials.customHeader.name.lower())
        if rule.x509 is not None:
            source = rule.x509.source
            names.add((source.xfccHeader or source.clientCertHeader or "").lower())
    return frozenset(map(folded, names))
