"""What the operator decides for this protocol."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """See `settings.app.Tgis`, which explains each and holds the defaults.

    Args:
        max_prompts: prompts in progress in this replica, over all calls.
    """

    default_max_new_tokens: int | None
    max_new_tokens: int
    default_include_stop_seqs: bool
    output_special_tokens: bool
    prompt_logprobs: bool
    max_prompts: int

    @property
    def new_tokens(self) -> int:
        """How many new tokens a request gets that doesn't say."""
        return self.default_max_new_tokens or self.max_new_tokens
