"""What is said of a server that came up."""

from rayserve_platform.cli.announce import lines


def test_a_server_that_lists_no_models_is_not_said_to_serve_none():
    assert list(lines("http://127.0.0.1:1", ("tgis",))) == [
        "ready: http://127.0.0.1:1/health, http://127.0.0.1:1/metrics, and TGIS over gRPC"
    ]
