"""What an ingress is told of token checks: the policy, and where its authorities are."""

from typing import Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.auth.policy import Policy
from rayserve_platform.settings.auth.rules import Url
from rayserve_platform.settings.auth.values import Pattern
from rayserve_platform.settings.model import Settings


class Kubernetes(Settings):
    """How the Kubernetes API is reached; in a pod nothing need be said."""

    url: str | None = Field(default=None, pattern=Url)
    """Of the API server; that of the pod's environment if nothing is said."""
    token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    """Read again when it changes."""
    ca_file: str | None = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    namespace_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class Keys(Settings):
    """The platform's own API keys, as `rayserve keys` makes them."""

    file: str | None = None
    """With the keys' digests; a Secret that is mounted will do, though the kubelet takes up to a
    minute to tell of changes. Followed while serving."""
    secret: str | None = Field(
        default=None, pattern=r"^([a-z0-9-]{1,63}/)?[a-z0-9][a-z0-9.-]{0,240}$"
    )
    """In place of a file: a Secret, `[namespace/]name`, watched through the Kubernetes API. Its
    pepper is in the Secret `<name>-pepper`, unless the environment has it."""
    pepper_file: str | None = None
    """With the pepper, unless the environment has it; `<file>.pepper` if nothing is said."""

    @model_validator(mode="after")
    def _one_place(self) -> "Keys":
        if (self.file is None) == (self.secret is None):
            raise ValueError("give one of file, secret")
        if self.secret is not None and self.pepper_file is not None:
            raise ValueError("pepper_file: belongs to 'file'")
        return self


class Auth(Settings):
    """Token checks of an ingress. Without this block everybody may call everything."""

    policy: Policy | None = None
    """An AuthConfig's `spec`, or the whole manifest. With `keys` alone it need not be given: then
    every key may do what its own scope says."""
    policy_file: str | None = None
    """A file with the same, in YAML, mounted into the replica; in place of `policy`. Read when a
    replica starts: a change counts after the next deployment. Keys and Secrets are followed."""
    keys: Keys | None = None
    """API keys for people without Kubernetes; a rule with `apiKey: {}` takes them."""
    load: tuple[Pattern, ...] = ()
    """Who may load and unload models (`ingress.kserve.repository_api`) besides calling them: those
    for whom all of these hold. Without any, those whom a SubjectAccessReview of the policy lets
    `update` the resource. A key says it by itself: `rayserve keys create --load`."""
    public: tuple[Literal["docs", "metrics"], ...] = ()
    """What is answered without a token, besides liveness and readiness."""
    budget_s: float = Field(default=2.0, gt=0, le=30)
    """How long a decision may take; then the request is answered 503."""
    secrets_dir: str | None = None
    """Where the Secrets that a policy refers to by name are mounted, as `<name>/<key>`; without it
    they are read from the Kubernetes API."""
    kubernetes: Kubernetes = Kubernetes()

    @model_validator(mode="after")
    def _one_policy(self) -> "Auth":
        given = [name for name in ("policy", "policy_file") if getattr(self, name) is not None]
        if len(given) > 1 or not (given or self.keys):
            raise ValueError("give one of policy, policy_file, or keys alone")
        return self
