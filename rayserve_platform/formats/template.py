"""The operator's chat template, which settings hold as such or as a file."""

from pathlib import Path

from rayserve_platform.core.errors import Code, PlatformError


def read_template(setting: str | None) -> str | None:
    """Return the template.

    Raises:
        PlatformError: INVALID_ARGUMENT with `param="chat_template"` for a file that can't be read.
    """
    if setting is None or "{" in setting:
        return setting
    try:
        return Path(setting).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            f"chat_template: '{setting}' can't be read",
            param="chat_template",
        ) from error
