"""Where a policy's rules get what they need: authorities, the Kubernetes API, Secrets, keys."""

from collections.abc import Mapping
from pathlib import Path

from rayserve_platform.edge.auth.authority import Authorities
from rayserve_platform.edge.auth.authorization.rego import Workers
from rayserve_platform.edge.auth.expression import PolicyFault
from rayserve_platform.edge.auth.keystore import KeyStore
from rayserve_platform.edge.auth.kubernetes import KubernetesApi
from rayserve_platform.edge.auth.verdict import Good, Rejected, Unavailable, Verdicts
from rayserve_platform.settings.auth.app import Auth

SECRET_TTL_S = 60.0


class Sources:
    """One a guard.

    Args:
        namespace: of the policy's Secrets; empty: the replica's own.
        keys: the platform's own keys, where there are any.
    """

    def __init__(self, settings: Auth, namespace: str, keys: KeyStore | None) -> None:
        self.authorities = Authorities(timeout_s=settings.budget_s)
        self.kubernetes = KubernetesApi(settings.kubernetes, self.authorities)
        self.keys = keys
        self.rego = Workers()
        self._directory = settings.secrets_dir
        self._namespace = namespace
        self._secrets: Verdicts[Mapping[str, bytes]] = Verdicts(SECRET_TTL_S)

    @property
    def namespace(self) -> str:
        """Where the policy's Secrets are."""
        return self._namespace or self.kubernetes.namespace

    async def secret(self, name: str) -> Mapping[str, bytes]:
        """Return the entries of a Secret: of a mounted one anew, else as of a minute ago at most.

        Raises:
            Unavailable: when it can't be read.
        """
        if self._directory is not None:
            try:
                return _mounted(self._directory, name)
            except PolicyFault as fault:
                raise Unavailable(str(fault)) from None
        try:
            return await self._secrets.get(name, lambda: self._read(name))
        except Rejected as error:
            raise Unavailable(str(error)) from None

    async def _read(self, name: str) -> Good[Mapping[str, bytes]]:
        try:
            return Good(await self.kubernetes.secret(self.namespace, name))
        except ValueError as error:
            raise Unavailable(f"the Secret '{name}': {error}") from None

    async def stop(self) -> None:
        """Close connections."""
        await self.rego.stop()
        await self._secrets.stop()
        await self.authorities.stop()


def _mounted(directory: str, name: str) -> dict[str, bytes]:
    """Return the entries of a Secret that is mounted as `<directory>/<name>/<key>`.

    Raises:
        PolicyFault: when it is not.
    """
    folder = Path(directory) / name
    try:
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    except OSError as error:
        raise PolicyFault(f"secrets_dir: the Secret '{name}' can't be read: {error}") from None
