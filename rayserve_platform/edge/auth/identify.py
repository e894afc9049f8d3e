"""The first phase: who asks. Any rule that knows the credentials is enough."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.authentication.certificate import ClientCertificate
from rayserve_platform.edge.auth.authentication.identity import Known, Method
from rayserve_platform.edge.auth.authentication.introspection import IntrospectedToken
from rayserve_platform.edge.auth.authentication.keys import OwnKeys, SecretKeys
from rayserve_platform.edge.auth.authentication.plain import AnonymousCaller, PlainIdentity
from rayserve_platform.edge.auth.authentication.signed import SignedToken
from rayserve_platform.edge.auth.authentication.token_review import ReviewedToken
from rayserve_platform.edge.auth.conditions import Patterns, computed
from rayserve_platform.edge.auth.credentials import Credentials, challenge, is_plain
from rayserve_platform.edge.auth.denial import Denial, unavailable
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault, PolicyFault
from rayserve_platform.edge.auth.rule import CacheKey, Compiled, by_priority
from rayserve_platform.edge.auth.sources import Sources
from rayserve_platform.edge.auth.verdict import Rejected, Unavailable, Verdicts
from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.auth.rules import Anonymous, Authentication

PHASE = "authentication"
NO_CREDENTIALS = "there are no credentials where the rule looks for them"


class Way:
    """One authentication rule, compiled."""

    def __init__(self, rule: Authentication, method: Method, where: str) -> None:
        self.method = method
        self.source = rule.credentials
        self._defaults = computed(rule.defaults, f"{where}.defaults")
        self._overrides = computed(rule.overrides, f"{where}.overrides")

    async def identify(self, credentials: Credentials, document: Document) -> Known:
        """Return who it is; raises as `Method.identify`."""
        token = ""
        if self.method.needs_token:
            token = credentials.find(self.source) or ""
            if not token:
                raise Rejected(NO_CREDENTIALS)
            if not is_plain(token):
                raise Rejected("the token is too long, or has characters that no token has")
        return await self.method.identify(token, credentials, document)

    def shaped(self, known: Known, document: Document) -> Mapping[str, Any]:
        """Return the identity with the rule's defaults and overrides.

        Raises:
            EvaluationFault: when one of these has no value.
        """
        identity = known.identity
        if not self._defaults and not self._overrides:
            return identity
        defaults = {
            name: one.of(document) for name, one in self._defaults.items() if name not in identity
        }
        overrides = {name: one.of(document) for name, one in self._overrides.items()}
        return {**defaults, **identity, **overrides}


class Identification:
    """All authentication rules of a policy."""

    def __init__(self, policy: Policy, sources: Sources) -> None:
        rules = policy.authentication or {"anonymous": Authentication(anonymous=Anonymous())}
        named = policy.patterns
        ways = [_compiled(name, rule, named, policy, sources) for name, rule in rules.items()]
        if sources.keys is not None and not any(
            isinstance(way.run.method, OwnKeys) for way in ways
        ):
            raise PolicyFault("keys: no authentication rule takes them; add one with 'apiKey: {}'")
        self._groups = by_priority(ways)
        self.ways = {way.name: way for way in ways}
        self.waits = any(way.run.method.waits for way in ways)
        self.challenges = tuple(
            dict.fromkeys(
                challenge(way.run.source, way.name) for way in ways if way.run.method.needs_token
            )
        ) or ('Bearer realm="rayserve"',)

    async def identify(self, credentials: Credentials, document: Document) -> Known:
        """Return who asks, and write it into the document.

        Raises:
            Denial: UNAUTHENTICATED when no rule knows the credentials; UNAVAILABLE when one that
                might could not say.
        """
        failures: list[tuple[str, Exception]] = []
        for group in self._groups:
            local = [way for way in group if way.run.method.is_local]
            remote = [way for way in group if not way.run.method.is_local]
            for way in local:
                if _believes(way) and _is_unsure(failures):
                    continue
                known = await self._try(way, credentials, document, failures)
                if known is not None:
                    return known
            known = await self._first(remote, credentials, document, failures)
            if known is not None:
                return known
        for name, failure in failures:
            if isinstance(failure, Unavailable):
                raise unavailable(f"{PHASE}.{name}", str(failure))
        raise self._refusal(failures)

    async def _first(
        self,
        ways: Sequence[Compiled[Way]],
        credentials: Credentials,
        document: Document,
        failures: list[tuple[str, Exception]],
    ) -> Known | None:
        """Ask several authorities at the same time; the first that knows the caller ends it."""
        if len(ways) < 2:
            return await self._try(ways[0], credentials, document, failures) if ways else None
        tries = [
            asyncio.ensure_future(self._try(way, credentials, document, failures)) for way in ways
        ]
        try:
            for attempt in asyncio.as_completed(tries):
                known = await attempt
                if known is not None:
                    return known
        finally:
            for attempt in tries:
                attempt.cancel()
        return None

    async def _try(
        self,
        way: Compiled[Way],
        credentials: Credentials,
        document: Document,
        failures: list[tuple[str, Exception]],
    ) -> Known | None:
        if document.identity is not None:
            return None
        try:
            if not way.applies(document):
                document.tell(f"{way.where}: does not apply")
                return None
            known = await way.run.identify(credentials, document)
            shaped = way.run.shaped(known, _with(document, known))
        except (Rejected, Unavailable, EvaluationFault) as failure:
            document.tell(f"{way.where}: {_kind(failure)}: {failure}")
            failures.append((way.name, failure))
            return None
        if document.identity is not None:  # another rule was first
            return None
        document.rule, document.identity, document.user = way.name, shaped, known.user
        document.tell(f"{way.where}: knows {name_of(shaped)}")
        return known

    def _refusal(self, failures: list[tuple[str, Exception]]) -> Denial:
        came_without = all(str(failure) == NO_CREDENTIALS for _, failure in failures)
        message = "Credentials are required." if came_without else "The credentials are not valid."
        return Denial(
            Code.UNAUTHENTICATED,
            message,
            rule=PHASE,
            reason="; ".join(f"{name}: {failure}" for name, failure in failures),
            headers=[("www-authenticate", one) for one in self.challenges],
        )

    async def start(self) -> None:
        """Get all ways ready."""
        await asyncio.gather(*(way.run.method.start() for way in self.ways.values()))

    async def stop(self) -> None:
        """End what `start` began."""
        await asyncio.gather(*(way.run.method.stop() for way in self.ways.values()))


def _believes(way: Compiled[Way]) -> bool:
    """Say whether a rule lets in whoever comes, without any proof."""
    return isinstance(way.run.method, AnonymousCaller | PlainIdentity)


def _is_unsure(failures: Sequence[tuple[str, Exception]]) -> bool:
    """Say whether credentials were sent that could not be looked at.

    Who they belong to may not be allowed what anybody else is.
    """
    return any(isinstance(failure, Unavailable) for _, failure in failures)


def name_of(identity: Mapping[str, Any]) -> str:
    """Return by which name an identity goes: the first of these that it has.

    Of a signed token this is `sub`: unique, and the issuer's to give. `username` may be a name that
    users choose for themselves.
    """
    metadata = identity.get("metadata")
    nested = metadata.get("name") if isinstance(metadata, Mapping) else None
    username = identity.get("username")
    of_review = identity.get("user")
    if isinstance(of_review, Mapping):
        username = username or of_review.get("username")
    subject = identity.get("sub")
    names = (subject, username) if "iss" in identity else (username, subject)
    for found in (*names, nested, identity.get("client_id")):
        if isinstance(found, str) and found:
            return found
    return "anonymous"


def _kind(failure: Exception) -> str:
    if isinstance(failure, Unavailable):
        return "unavailable"
    return "refused" if isinstance(failure, Rejected) else "fault"


def _with(document: Document, known: Known) -> Document:
    """Return a document whose identity is one that is not taken yet."""
    other = Document(document.request)
    other.identity = known.identity
    return other


def _compiled(
    name: str, rule: Authentication, named: Patterns, policy: Policy, sources: Sources
) -> Compiled[Way]:
    where = f"{PHASE}.{name}"
    method = _method(rule, where, policy, sources)
    return Compiled(name, rule, named, PHASE, Way(rule, method, where))


def _method(rule: Authentication, where: str, policy: Policy, sources: Sources) -> Method:
    everywhere = rule.apiKey or rule.x509
    namespace = None if everywhere and everywhere.allNamespaces else sources.namespace
    key = CacheKey(rule.cache, where)
    verdicts: Verdicts[Known] = Verdicts(key.ttl_s)
    if rule.cache is not None and (rule.kubernetesTokenReview or rule.oauth2Introspection) is None:
        raise PolicyFault(f"{where}: 'cache' is of no use: this method asks nobody")
    if rule.apiKey is not None and rule.apiKey.selector is not None:
        return SecretKeys(sources.kubernetes, rule.apiKey.selector, namespace)
    if rule.apiKey is not None:
        if sources.keys is None:
            raise PolicyFault(
                f"{where}: 'apiKey' needs a selector, or the platform's own keys (`auth.keys` of a "
                "Serve config)"
            )
        return OwnKeys(sources.keys)
    if rule.jwt is not None:
        return SignedToken(rule.jwt, sources.authorities)
    if rule.kubernetesTokenReview is not None:
        review = rule.kubernetesTokenReview
        audiences = review.audiences or _audiences(policy, where)
        api = sources.kubernetes
        return ReviewedToken(api, audiences, verdicts, key.about, review.timeout)
    if rule.oauth2Introspection is not None:
        asked = rule.oauth2Introspection
        reference = asked.credentialsRef.name
        return IntrospectedToken(
            asked, sources.authorities, lambda: sources.secret(reference), verdicts, key.about
        )
    if rule.x509 is not None:
        return ClientCertificate(sources.kubernetes, rule.x509, namespace)
    return _without_proof(rule, where)


def _without_proof(rule: Authentication, where: str) -> Method:
    """Return a method that believes whoever comes; never one that the rule does not name."""
    if rule.plain is not None:
        return PlainIdentity(rule.plain, where)
    if rule.anonymous is not None:
        return AnonymousCaller()
    raise PolicyFault(f"{where}: has no method")


def _audiences(policy: Policy, where: str) -> Sequence[str]:
    """Return the policy's hosts: Authorino takes the request's, which its caller chooses."""
    hosts = [host for host in policy.hosts if "*" not in host]
    if not hosts:
        raise PolicyFault(
            f"{where}: 'audiences' is required, or 'hosts' without '*' to take them from"
        )
    return hosts
