"""Progress is a bar for people and lines for logs."""

import io

from rayserve_platform.formats.progress import progress_reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_phase_is_one_line() -> None:
    out = io.StringIO()
    with progress_reporter(out) as report:
        report("reading", 0.0)
        report("reading", 0.5)
        report("writing", 0.0)
    assert out.getvalue() == "model: reading\nmodel: writing\n"


def test_on_a_terminal_each_phase_has_a_bar() -> None:
    out = Terminal()
    with progress_reporter(out) as report:
        report("reading", 0.0)
        report("writing", 1.0)
    assert "reading" in out.getvalue()
    assert "writing" in out.getvalue()


def test_nothing_to_do_writes_nothing() -> None:
    for out in (io.StringIO(), Terminal()):
        with progress_reporter(out):
            pass
        assert out.getvalue() == ""
