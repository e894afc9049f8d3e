"""`python -m rayserve_platform.formats.gguf_to_hf FILE DIR`: the process that converts a model.

It is a process of its own because torch and transformers are large and loud: nothing of them stays
in the caller. Standard output carries one JSON array `[phase, fraction]` a line, standard error
whatever the libraries have to say. It ends when its standard input does, that is with its parent.
"""

import json
import os
import sys
import threading
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from rayserve_platform.formats.progress import Report


def convert(file: Path, directory: Path, report: Report) -> None:
    """Write the model of a GGUF file as safetensors in float32, with tokenizer and chat template.

    float32 holds every value of every quantization exactly, and is the one type that all CPUs
    compute right; an engine narrows it as it likes.
    """
    where, name = str(file.parent), file.name
    report("reading", 0.0)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    report("dequantizing", 0.0)
    model = AutoModelForCausalLM.from_pretrained(
        where,
        gguf_file=name,
        quantization_config=GgufConfig(dequantize=True),
        dtype="float32",
    )
    report("writing", 0.0)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    report("writing", 1.0)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # unbuffered: a thread in a buffered read breaks the exit
    os._exit(1)


def main() -> None:
    """Convert what the two arguments name."""
    file, directory = map(Path, sys.argv[1:])
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print must not break the protocol
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(phase: str, fraction: float) -> None:
        print(json.dumps([phase, fraction]), file=lines, flush=True)

    convert(file, directory, report)


if __name__ == "__main__":
    main()
