"""CEL expressions, as Authorino knows them: the language, its strings library, optionals.

Evaluated by Google's CEL in C++: no expression can loop for ever, and `matches` is RE2, so no text
of a caller's can make it slow. Its trap: an error comes back as a value of type ERROR, which is
true as Python sees it; so the type is looked at before the value is.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_encoders, ext_optional, ext_strings

ROOTS = ("request", "context", "source", "destination", "auth", "metadata", "model")
"""What an expression may name; `model` is ours: the resolved model and its adapter."""


PATH = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")
"""An expression that does nothing but name a member: read without an engine, where it is a text."""


class PolicyFault(ValueError):
    """A policy that can't be used; the text names the place and is for its author."""


class EvaluationFault(Exception):
    """An expression that has no value for this request; the text is for the log."""


@cache
def _environment() -> cel.Env:
    return cel.NewEnv(
        variables=dict.fromkeys((*ROOTS, "text", "pattern"), cel.Type.DYN),
        extensions=[
            ext_strings.ExtStrings(),
            ext_optional.ExtOptional(),
            ext_encoders.ExtEncoders(),
        ],
    )


class Expression:
    """A compiled expression.

    Args:
        names: the roots that it may name; it can name nothing that does not stand in its text.

    Raises:
        PolicyFault: when it is no CEL, or names what there is not.
    """

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.names = named(text)
        self._path = text.split(".") if PATH.fullmatch(text) else []
        try:
            self._compiled = _environment().compile(text)
        except RuntimeError as error:
            reason = str(error).removeprefix("INVALID_ARGUMENT: ").split("\n", 1)[0]
            raise PolicyFault(f"{where}: {reason} in CEL expression {text!r}") from None

    def value(self, roots: Mapping[str, Any]) -> Any:
        """Return the value.

        Raises:
            EvaluationFault: when there is none.
        """
        member: Any = roots if self._path else None
        for name in self._path:
            member = member.get(name) if isinstance(member, dict) else None
        if isinstance(member, str):
            return member
        found = self._evaluated(roots)
        if found.type() == cel.Type.ERROR:
            raise EvaluationFault(f"{self.text}: {_reason(found.value())}")
        return found.plain_value()

    def holds(self, roots: Mapping[str, Any]) -> bool:
        """Say whether the expression is true.

        Raises:
            EvaluationFault: when it is neither true nor false.
        """
        found = self._evaluated(roots)
        if found.type() != cel.Type.BOOL:
            reason = _reason(found.value()) if found.type() == cel.Type.ERROR else found.type()
            raise EvaluationFault(f"{self.text}: neither true nor false: {reason}")
        return bool(found.value())

    def _evaluated(self, roots: Mapping[str, Any]) -> Any:
        try:
            return self._compiled.eval(data=roots)
        except RuntimeError:
            # As of a text with half a character in it, which JSON may well have.
            raise EvaluationFault(f"{self.text}: can't be evaluated over this request") from None


def named(text: str) -> tuple[str, ...]:
    """Return the roots whose names stand anywhere in a text."""
    return tuple(name for name in ROOTS if re.search(rf"\b{name}\b", text))


def _reason(error: object) -> str:
    """Return what an error says, without the values that it quotes: these may be secrets."""
    return str(error).split(" for '", 1)[0][:200]


@cache
def _matching() -> Expression:
    return Expression("text.matches(pattern)", "matches")


def matches(pattern: str, text: str) -> bool:
    """Say whether a regular expression (RE2) is found anywhere in a text.

    Raises:
        EvaluationFault: when it is none.
    """
    return _matching().holds({"text": text, "pattern": pattern})
