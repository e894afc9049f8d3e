"""A decision, step by step, for people who write policies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.principal import Target
from rayserve_platform.edge.auth.attributes import Request
from rayserve_platform.edge.auth.credentials import Credentials
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.expression import PolicyFault
from rayserve_platform.edge.auth.guard import Guard
from rayserve_platform.edge.auth.opening import keys_of, policy_of, read_yaml
from rayserve_platform.settings.auth.app import Auth, Kubernetes
from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.model import validated


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What came of a request: the steps, and the end of them."""

    steps: tuple[str, ...]
    verdict: str
    is_allowed: bool
    is_decided: bool = True
    """Whether it was about a model, too."""


def read_settings(path: Path, kubernetes_url: str | None = None) -> Auth:
    """Read a policy's file: an AuthConfig, its `spec`, or a Serve config with `ingress.auth`.

    Raises:
        PolicyFault: when there is no policy in it, or one that can't be used.
    """
    content = read_yaml(path)
    if isinstance(content, dict) and "applications" in content:
        given = [found for app in _listed(content["applications"]) if (found := _auth_of(app))]
        if len(given) != 1:
            raise PolicyFault(f"{path}: {len(given)} applications have ingress.auth; expected one")
        settings = validated(Auth, given[0], PolicyFault, f"{path}: ingress.auth")
    else:
        settings = Auth(policy=validated(Policy, content, PolicyFault, str(path)))
    if kubernetes_url is not None:
        kubernetes = Kubernetes(**{**settings.kubernetes.model_dump(), "url": kubernetes_url})
        settings = settings.model_copy(update={"kubernetes": kubernetes})
    return settings


def _listed(applications: Any) -> list[Any]:
    return applications if isinstance(applications, list) else []


def _auth_of(application: Any) -> Any:
    """Return `args.ingress.auth` of an application, or None."""
    found = application
    for name in ("args", "ingress", "auth"):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def described(settings: Auth) -> Iterator[str]:
    """Check a policy and tell what is in it.

    Raises:
        PolicyFault: when it can't be used.
    """
    policy = policy_of(settings)
    Guard(settings, policy, keys_of(settings))
    for where, rule in policy.rules():
        conditions = f", under {len(rule.when)} conditions" if rule.when else ""
        yield f"{where}: priority {rule.priority}{conditions}"
    if policy.hosts:
        yield "hosts: not looked at; the policy holds for every request to the application"
    if not policy.authentication:
        yield "authentication: no rule, so everybody is anonymous"
    if not policy.authorization:
        yield "authorization: no rule, so whoever is known may call every model"


async def explain(
    settings: Auth, request: Request, headers: Sequence[tuple[str, str]], target: Target | None
) -> Explained:
    """Decide upon a request and tell how; raises as `described`."""
    guard = Guard(settings, policy_of(settings), keys_of(settings))
    steps: list[str] = []
    try:
        await guard.start()
        credentials = Credentials(headers, request.query)
        principal = await guard.decide(credentials, request, target, steps.append)
    except Denial as denial:
        reason = f"{denial.rule}: {denial.reason}" if denial.reason else denial.rule
        verdict = f"{denial.code.value}, {denial.message!r} ({reason})"
        return Explained(steps=tuple(steps), verdict=verdict, is_allowed=False)
    except PlatformError as error:
        verdict = f"{error.code.value}, {error.message!r}"
        return Explained(steps=tuple(steps), verdict=verdict, is_allowed=False)
    finally:
        await guard.stop()
    steps += [f"response: {name}: {value}" for name, value in principal.headers]
    groups = f", in {', '.join(principal.groups)}" if principal.groups else ""
    if target is None:
        what = "; what they may call is decided for a model (--model)"
    else:
        what = f" may {target.operation} {target.adapter or target.model}"
    verdict = f"{principal.id}{groups}{what}"
    return Explained(
        steps=tuple(steps), verdict=verdict, is_allowed=True, is_decided=target is not None
    )
