"""Prompts to send: a built-in list, or one per line of a file."""

from __future__ import annotations

from pathlib import Path

from rayserve_platform.bench.errors import BenchError

# Different first words, lengths and subjects: no two share a prefix that a server could reuse,
# so prefix caching helps every server alike and only on repeats.
BUILT_IN: tuple[str, ...] = (
    "Explain how a bicycle stays upright while it is moving.",
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "What is the difference between a list and a tuple in Python?",
    "Summarise the causes of the French Revolution in a few sentences.",
    "Give me a recipe for a vegetable soup that takes less than half an hour.",
    "Describe the water cycle to a ten year old child, step by step.",
    "Translate 'The weather is beautiful today' into French, Spanish and German.",
    "Name three advantages and three disadvantages of working from home.",
    "How does a refrigerator keep food cold? Mention the compressor and the refrigerant.",
    "My train leaves at 14:35 and the ride takes 3 hours and 50 minutes. When do I arrive?",
    "Compose a polite email asking a colleague to review a document by Friday.",
    "Which planets of the solar system have rings, and what are the rings made of?",
    "Plan a weekend in Lisbon for two people who like music, food and long walks.",
    "Do cats really always land on their feet? Tell me what physicists found out.",
    "Let x be a number such that 3x + 7 = 31. Solve for x and show every step of the work.",
    "Imagine a city without cars. How would people, goods and emergency services move around?",
)


def read_prompts(path: Path) -> tuple[str, ...]:
    """Return the non-empty lines of a UTF-8 file.

    Raises:
        BenchError: the file can't be read or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"prompts file {path} can't be read: {error}") from error
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise BenchError(f"prompts file {path} has no prompt; put one on each line")
    return prompts
