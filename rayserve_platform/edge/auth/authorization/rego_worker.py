"""Evaluates Rego policies, in a process of its own that may be killed at any time.

A script, not a module: it runs without this package, in an empty environment. It is told policies
first and inputs then, over the socket that is its standard input, and ends with that.

The engine, rego-cpp, is believed as little as need be. It takes policies that OPA refuses: with
a variable that nothing binds, so that a `not` holds by mistake, a function that there isn't, a
rule that depends on itself. And it loses a variable that should run through a second list, as in
`input.a[i] == input.b[j]`. These are looked for in the plan that it makes. Its texts are kept as
JSON writes them, and a function may cut one in the middle of an escape; so results are read value
by value, never from the JSON that it puts together, in which a text could pose as another rule.
"""

import ctypes
import json
import re
import resource
import signal
import socket
import struct
import sys
import tempfile
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

MAX_BYTES = 2**16
"""Of an input, and of a result."""
HEAD = "package policy\n"
SIZE = struct.Struct("!I")
ERROR = re.compile(r"\(error \d+:[^|]*\|(\d+)\|\d+\s+\(errormsg \d+:(.*)\)")
WRITTEN = frozenset({"target", "result", "local"})
READ = frozenset({"source", "array", "object", "set"})


class Refused(Exception):
    """A policy that can't be used; the text is for its author."""


class Policy:
    """A compiled policy.

    Args:
        all_values: the values of all its rules are its result, else only that of `allow`.
    """

    def __init__(self, text: str, *, all_values: bool) -> None:
        _check(text)
        self._rego, self._bundle = _compiled(text, "data.policy" + ("" if all_values else ".allow"))

    def evaluate(self, given: str) -> list[Any]:
        """Return the result in a list, which is empty if the policy has none."""
        from regopy import rego_shared as engine

        self._rego.set_input_term(given)
        output = engine.rego_bundle_query(self._rego._impl, self._bundle._impl)  # noqa: SLF001
        try:
            if not engine.rego_output_ok(output):
                raise ValueError("the policy can't be evaluated over this request")
            if engine.rego_output_string(output) == "undefined":
                return []
            found = _read(engine.rego_output_expressions_at_index(output, 0))
        finally:
            engine.rego_free_output(output)
        if not isinstance(found, list) or len(found) != 1:
            raise ValueError("the engine found something else than one value")
        return found


def _compiled(text: str, query: str) -> tuple[Any, Any]:
    from regopy import Interpreter, LogLevel, RegoError

    rego = Interpreter()
    rego.log_level = LogLevel.NONE
    # Else a function that fails has no value, and a `not` of it holds.
    rego.strict_built_in_errors = True
    try:
        rego.add_module("policy", f"{HEAD}{text}\n")  # a comment ends only with its line
        bundle = rego.build(query, [])
    except RegoError as error:
        raise Refused(_reason(str(error), HEAD + text)) from None
    if not bundle.ok():
        raise Refused("rules contradict each other")
    return rego, bundle


def _reason(error: str, text: str) -> str:
    """Return what a fault of the engine's says, with the line in the policy's own text."""
    found = ERROR.search(error)
    if found is None:
        return "is not understood"
    line = text.encode()[: int(found[1])].count(b"\n")
    return f"line {line}: {found[2]}"


def _check(text: str) -> None:
    """Refuse what OPA would, and what has no `allow`."""
    rego, bundle = _compiled(text, "data.policy")
    with tempfile.TemporaryDirectory() as folder:
        rego.save_bundle(folder, bundle)
        plan = json.loads(Path(folder, "plan.json").read_text(encoding="utf-8"))
    functions = plan["funcs"]["funcs"]
    if not any(function["path"][1:] == ["policy", "allow"] for function in functions):
        raise Refused("has no rule 'allow'")
    known = {function["name"] for function in functions}
    calls = {}
    for function in functions:
        locals_ = Locals()
        locals_.look(function["blocks"], 0)
        calls[function["name"]] = known & locals_.called.keys()
        for name, line in locals_.called.items():
            if name not in known and not rego.is_builtin(name):
                raise Refused(f"line {line}: there is no function '{name}'")
        unbound = set(locals_.read) - locals_.written - set(function["params"])
        if unbound:
            line = min(locals_.read[one] for one in unbound)
            reason = (
                "a variable has no value, or runs through a list as only 'some … in' can say it"
            )
            raise Refused(f"line {line}: {reason}")
    try:
        TopologicalSorter(calls).prepare()
    except CycleError:
        raise Refused("a rule depends on itself") from None


class Locals:
    """What a function of a plan reads, writes and calls; with the lines of the policy's text.

    Source: Open Policy Agent, docs, "Intermediate Representation (IR)".
    """

    def __init__(self) -> None:
        self.read: dict[int, int] = {}
        self.written: set[int] = set()
        self.called: dict[str, int] = {}

    def look(self, part: Any, line: int) -> None:
        """Go through a part of a plan."""
        if isinstance(part, list):
            for one in part:
                self.look(one, line)
        if not isinstance(part, dict):
            return
        line = part.get("row", line)
        if part.get("type") == "local":
            self.read.setdefault(part["value"], line)
        if part.get("type") == "ScanStmt":
            self.written |= {part["stmt"]["key"], part["stmt"]["value"]}
        if isinstance(part.get("func"), str):
            self.called.setdefault(part["func"], line)
        for name, found in part.items():
            if isinstance(found, int) and name in WRITTEN:
                self.written.add(found)
            elif isinstance(found, int) and name in READ:
                self.read.setdefault(found, line)
            else:
                self.look(found, line)


def _read(node: ctypes.c_void_p) -> Any:
    """Return a value of the engine's as Python has it."""
    from regopy import NodeKind
    from regopy import rego_shared as engine

    kind = engine.rego_node_type(node)
    if kind in (NodeKind.Term, NodeKind.Scalar):
        return _read(engine.rego_node_get(node, 0))
    inner = [engine.rego_node_get(node, index) for index in range(engine.rego_node_size(node))]
    if kind in (NodeKind.Terms, NodeKind.Array, NodeKind.Set):
        return [_read(one) for one in inner]
    if kind == NodeKind.Object:
        items = [[_read(engine.rego_node_get(one, place)) for place in (0, 1)] for one in inner]
        return {key if isinstance(key, str) else json.dumps(key): found for key, found in items}
    if kind == NodeKind.Null:
        return None
    written = engine.rego_node_value(node)
    if kind == NodeKind.String:
        quoted = len(written) > 1 and written[0] == written[-1] == '"'
        return json.loads(written if quoted else f'"{written}"')
    return json.loads(written)


def _answer(policies: list[Policy], message: bytes) -> bytes:
    try:
        number = SIZE.unpack(message[: SIZE.size])[0]
        found = policies[number].evaluate(message[SIZE.size :].decode())
        answer = json.dumps({"found": found}).encode()
        if len(answer) > MAX_BYTES:
            raise ValueError(f"the result has more than {MAX_BYTES} bytes")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001  # whatever it is, this input has no result
        # What the engine says may quote the input.
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        return json.dumps({"fault": reason}).encode()
    return answer


def _receive(stream: Any) -> bytes:
    head = stream.read(SIZE.size)
    if len(head) < SIZE.size:
        sys.exit(0)
    found: bytes = stream.read(SIZE.unpack(head)[0])
    return found


def main(folder: str, start_s: float, limit_s: float) -> None:
    """Serve until the other side is gone.

    Args:
        folder: where the engine's package is.
        start_s: of CPU time that compiling may take; then the kernel ends this process.
        limit_s: the same for one evaluation.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The engine reserves more memory than it uses, so that a limit of it would mean nothing: where
    # memory ends, the kernel is to end this process before any other.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.append(folder)
    connection = socket.socket(fileno=0)
    stream = connection.makefile("rb")
    signal.setitimer(signal.ITIMER_PROF, start_s)
    policies, answer = [], {}
    try:
        for text, all_values in json.loads(_receive(stream)):
            policies.append(Policy(text, all_values=all_values))
    except Refused as refused:
        answer = {"refused": str(refused)}
    content = json.dumps(answer).encode()
    while True:
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.sendall(SIZE.pack(len(content)) + content)
        message = _receive(stream)
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        content = _answer(policies, message)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
