"""Anonymous callers, and identities that something in front has verified."""

from collections.abc import Mapping

from rayserve_platform.edge.auth.authentication.identity import Idle, Known
from rayserve_platform.edge.auth.conditions import Computed
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.verdict import Rejected
from rayserve_platform.settings.auth.rules import Plain
from rayserve_platform.settings.auth.values import Value


class AnonymousCaller(Idle):
    """Anybody, as `{"anonymous": true}`, Authorino's identity."""

    needs_token = False
    is_local = True
    waits = False

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return nobody in particular."""
        return Known(identity={"anonymous": True})


class PlainIdentity(Idle):
    """Part of the authorization JSON. Believed: the edge must strip what clients send there."""

    needs_token = False
    is_local = True
    waits = False

    def __init__(self, rule: Plain, where: str) -> None:
        source = {name: getattr(rule, name) for name in rule.model_fields_set}
        self._value = Computed(Value(**source), where)

    async def identify(self, token: str, credentials: Credentials, document: Document) -> Known:
        """Return what stands there."""
        found = self._value.of(document)
        if isinstance(found, str) and found:
            return Known(identity={"username": found})
        if isinstance(found, Mapping) and found:
            return Known(identity=found)
        raise Rejected("there is no identity where the rule looks for it")
