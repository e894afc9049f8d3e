"""From settings to a gate: the policy is read, checked and compiled."""

from pathlib import Path
from typing import Any

import yaml

from rayserve_platform.edge.auth.expression import PolicyFault
from rayserve_platform.edge.auth.gate import Gate, Targets
from rayserve_platform.edge.auth.guard import Guard
from rayserve_platform.edge.auth.keystore import KeyStore
from rayserve_platform.edge.keys.followed import FollowedFile
from rayserve_platform.edge.keys.store import ReloadingKeys
from rayserve_platform.edge.keys.watched import FollowedSecret
from rayserve_platform.settings.auth.app import Auth
from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.auth.rules import ApiKey, Authentication
from rayserve_platform.settings.model import validated


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: of two rules with one name, only the last would count."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"'{key.value}' stands there twice", problem_mark=key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


def open_gate(settings: Auth, targets: Targets) -> Gate:
    """Return the gate that settings describe; `targets` is as for `Gate`.

    Raises:
        PolicyFault: when the policy can't be used.
    """
    return Gate(Guard(settings, policy_of(settings), keys_of(settings)), targets)


def check(settings: Auth) -> None:
    """Refuse a policy that can't be used; a file that is not here yet is not looked at.

    Raises:
        PolicyFault: saying why.
    """
    if settings.policy_file is None or Path(settings.policy_file).exists():
        Guard(settings, policy_of(settings), keys_of(settings))


def policy_of(settings: Auth) -> Policy:
    """Return the policy; raises as `open_gate`."""
    if settings.policy is not None:
        return settings.policy
    if settings.policy_file is not None:
        return read_policy(Path(settings.policy_file))
    return Policy(authentication={"keys": Authentication(apiKey=ApiKey())})


def read_policy(path: Path) -> Policy:
    """Read an AuthConfig from a YAML file; raises as `open_gate`."""
    return validated(Policy, read_yaml(path), PolicyFault, str(path))


def read_yaml(path: Path) -> Any:
    """Read a YAML file; raises as `open_gate`."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a safe one
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PolicyFault(f"{path}: can't be read: {reason}") from None
    except yaml.YAMLError as error:
        raise PolicyFault(f"{path}: is not YAML: {' '.join(str(error).split())}") from None


def keys_of(settings: Auth) -> KeyStore | None:
    """Return the platform's own keys, where there are any; not started."""
    if settings.keys is None:
        return None
    pepper = settings.keys.pepper_file
    if settings.keys.file is not None:
        path = Path(settings.keys.file)
        return ReloadingKeys(FollowedFile(path, None if pepper is None else Path(pepper)))
    assert settings.keys.secret is not None
    return ReloadingKeys(FollowedSecret(settings.kubernetes, settings.keys.secret))
