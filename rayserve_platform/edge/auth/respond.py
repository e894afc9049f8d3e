"""The fourth phase: what goes on to the engine, and how a refusal looks."""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.conditions import Computed, Patterns, computed
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault, PolicyFault
from rayserve_platform.edge.auth.rule import Compiled, by_priority
from rayserve_platform.edge.auth.selector import written
from rayserve_platform.edge.headers import folded
from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.auth.response import DenyWith, Success

log = logging.getLogger("rayserve.auth")

T = TypeVar("T")

PHASE = "response.success"
NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
FRAMING = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "host", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""What a policy may not set: it says where a message ends, or what it is."""


class Item:
    """One header or metadata entry, compiled."""

    def __init__(self, rule: Success, name: str, where: str) -> None:
        self.key = rule.key or name
        self._plain = Computed(rule.plain, where) if rule.plain is not None else None
        self._json = computed(rule.json_.properties, where) if rule.json_ is not None else {}

    def of(self, document: Document) -> Any:
        """Return the value; raises EvaluationFault when there is none."""
        if self._plain is not None:
            return self._plain.of(document)
        return {name: one.of(document) for name, one in self._json.items()}


class Responses:
    """What a policy says under `response`."""

    def __init__(self, policy: Policy) -> None:
        given, named = policy.response, policy.patterns
        self._headers = _items(given.success.headers, named, f"{PHASE}.headers")
        self._metadata = _items(given.success.dynamicMetadata, named, f"{PHASE}.dynamicMetadata")
        for rule in self._headers:
            _check_name(rule.run.key, rule.where)
        self.header_names = frozenset(folded(rule.run.key) for rule in self._headers)
        self._denials = {
            Code.UNAUTHENTICATED: Refusal(given.unauthenticated, "response.unauthenticated"),
            Code.PERMISSION_DENIED: Refusal(given.unauthorized, "response.unauthorized"),
        }

    def headers(self, document: Document) -> tuple[tuple[str, str], ...]:
        """Return the headers for the engine; one that can't be written is left out."""
        found = _values(self._headers, document, written)
        return tuple((key.lower(), text) for key, text in found.items() if is_fit(text))

    def metadata(self, document: Document) -> Mapping[str, Any]:
        """Return the metadata for limits and logs."""
        return _values(self._metadata, document, lambda found: found)

    def dressed(self, denial: Denial, document: Document) -> Denial:
        """Return a refusal as the policy wants it to look."""
        refusal = self._denials.get(denial.code)
        return denial if refusal is None else refusal.dressed(denial, document)


class Refusal:
    """What a policy says of one kind of refusal."""

    def __init__(self, given: DenyWith, where: str) -> None:
        self._status = given.code
        self._message = Computed(given.message, f"{where}.message") if given.message else None
        self._body = Computed(given.body, f"{where}.body") if given.body else None
        self._headers = computed(given.headers, f"{where}.headers")
        for name in given.headers:
            _check_name(name, where)
        self._is_empty = given == DenyWith()

    def dressed(self, denial: Denial, document: Document) -> Denial:
        """Return the refusal with what the policy gives; what has no value stays as it was."""
        if self._is_empty:
            return denial
        found = {name: _text(one, document) for name, one in self._headers.items()}
        headers = [(name.lower(), text) for name, text in found.items() if text and is_fit(text)]
        message = _text(self._message, document) if self._message else None
        return Denial(
            denial.code,
            message or denial.message,
            rule=denial.rule,
            reason=denial.reason,
            headers=headers or denial.headers,
            status=self._status,
            body=_text(self._body, document) if self._body else None,
        )


def is_fit(text: str) -> bool:
    """Say whether a text may be a header's value: visible ASCII and blanks."""
    return text.isascii() and text.isprintable() and len(text) <= 8192


def _text(value: Computed, document: Document) -> str | None:
    try:
        return written(value.of(document))
    except EvaluationFault as fault:
        log.warning("a part of a refusal has no value: %s", fault)
        return None


def _items(rules: Mapping[str, Success], named: Patterns, phase: str) -> list[Compiled[Item]]:
    compiled = [
        Compiled(name, rule, named, phase, Item(rule, name, f"{phase}.{name}"))
        for name, rule in rules.items()
    ]
    return [rule for group in by_priority(compiled) for rule in group]


def _values(
    rules: list[Compiled[Item]], document: Document, form: Callable[[Any], T]
) -> dict[str, T]:
    found: dict[str, T] = {}
    for rule in rules:
        try:
            if rule.applies(document):
                found[rule.run.key] = form(rule.run.of(document))
        except EvaluationFault as fault:
            document.tell(f"{rule.where}: left out: {fault}")
            log.warning("%s is left out: %s", rule.where, fault)
    return found


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name) or name.lower() in FRAMING:
        raise PolicyFault(f"{where}: a policy can't set a header {name!r}")
