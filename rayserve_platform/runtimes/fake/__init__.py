"""A deterministic engine with scripted delay and failure: drives every protocol test.

One character is one token and its id is the code point, so tokenizing is exact, reversible and the
same in every replica. The text it writes is cut from one fixed sentence; where it starts depends on
the prompt and the seed alone.
"""

from rayserve_platform.runtimes.fake.engine import FakeRuntime
from rayserve_platform.runtimes.fake.writing import EOS_ID, SENTENCE

__all__ = ["EOS_ID", "SENTENCE", "FakeRuntime"]
