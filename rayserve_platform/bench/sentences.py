"""Sentences to embed: everyday words in random order, the same ones for the same seed."""

from __future__ import annotations

import random

# Each is one token of BERT's vocabulary: a sentence has two tokens more than it has words.
_WORDS = (
    "apple", "bank", "beach", "bell", "bird", "boat", "book", "bottle", "box", "bread",
    "bridge", "brother", "bus", "butter", "camera", "captain", "castle", "cat", "chain",
    "cheese", "church", "circle", "city", "clock", "cloud", "coast", "coffee", "color", "corn",
    "cotton", "cow", "cup", "dance", "desert", "dinner", "dream", "dress", "dust", "earth",
    "egg", "engine", "farm", "father", "field", "finger", "fire", "fish", "flag", "floor",
    "forest", "friend", "fruit", "game", "gate", "glass", "gold", "grass", "guitar", "hat",
    "heart", "hill", "home", "hotel", "ice", "iron", "island", "jacket", "key", "king", "lake",
    "leaf", "letter", "library", "lion", "map", "meat", "metal", "milk", "mirror", "moon",
    "mother", "mouth", "museum", "neck", "nest", "ocean", "office", "oil", "orange", "page",
    "palace", "pen", "piano", "pocket", "queen", "rabbit", "rain", "ring", "rose", "salt",
    "sand", "ship", "shoe", "silver", "sister", "sky", "snow", "soap", "soup", "spring", "star",
    "stone", "sugar", "sun", "table", "tail", "tea", "tent", "thread", "tiger", "tooth",
    "tower", "toy", "tree", "uncle", "valley", "village", "violin", "voice", "wall", "watch",
    "wheat", "wheel", "wind", "wing", "wolf", "wood", "wool", "yard",
)  # fmt: skip


WORDS = 20
"""Words of a sentence, which is two tokens longer."""


def sentences(count: int, *, words: int = WORDS, seed: int = 7) -> tuple[str, ...]:
    """Return `count` sentences of so many words."""
    source = random.Random(seed)
    return tuple(" ".join(source.choices(_WORDS, k=words)) for _ in range(count))
