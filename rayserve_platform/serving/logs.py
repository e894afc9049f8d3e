"""Where the platform's log lines go in a replica: Serve's own log file of that replica."""

import logging

SERVE_LOGGER = "ray.serve"
"""The logger that Serve configures in every replica (file, rotation, format, `logging_config`)."""


def configure_logging() -> None:
    """Give the platform's loggers Serve's handlers, once a process.

    Without this the lines of a replica would go to its stderr, which Serve redirects or drops,
    depending on its settings. Serve's handler may keep lines back to write many at once; an error
    makes it write at once.
    """
    ours = logging.getLogger("rayserve")
    ours.handlers = list(logging.getLogger(SERVE_LOGGER).handlers)
    ours.setLevel(logging.INFO)
    ours.propagate = False
