"""A chat template is given as such, or as a file."""

import pytest

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.formats.template import read_template


def test_a_template_is_taken_as_it_is_and_a_file_is_read(tmp_path):
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}", encoding="utf-8")
    assert read_template("{{ x }}") == "{{ x }}"
    assert read_template(str(file)) == "{{ messages }}"
    assert read_template(None) is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_a_file_that_cant_be_read_is_named(tmp_path, content):
    file = tmp_path / "chat.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PlatformError, match=r"chat_template: '.*chat\.jinja' can't be read"):
        read_template(str(file))
