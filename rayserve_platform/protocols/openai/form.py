"""multipart/form-data bodies: uploads, whose `model` an engine's own server reads by itself."""

from collections.abc import AsyncGenerator

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from rayserve_platform.protocols.openai.translate import invalid

MAX_FIELDS = 100


async def model_of(content_type: bytes, body: bytes) -> str | None:
    """Return the model that a form names; None where it names none.

    Raises:
        PlatformError: INVALID_ARGUMENT when it can't be read, or names several.
    """

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield body

    headers = Headers(raw=[(b"content-type", content_type)])
    parser = MultiPartParser(
        headers, pieces(), max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError):
        raise invalid("The request body is not a valid multipart form.", "body") from None
    try:
        found = form.getlist("model")
        if len(found) > 1:
            raise invalid("The request body has several 'model'; send one.", "model")
        if found and not isinstance(found[0], str):
            raise invalid("'model' must be a string.", "model")
        return str(found[0]) if found else None
    finally:
        await form.close()
