"""Patterns and values of a policy, compiled once and evaluated for each request."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rayserve_platform.edge.auth.document import Document
from rayserve_platform.edge.auth.expression import EvaluationFault, Expression, PolicyFault, matches
from rayserve_platform.edge.auth.selector import Selector, written
from rayserve_platform.settings.auth.values import Comparison, Pattern, Value

Roots = Mapping[str, Any]
Test = Callable[[Roots], bool]
Patterns = Mapping[str, tuple[Comparison, ...]]


class Conditions:
    """Patterns that must all hold.

    Raises:
        PolicyFault: when one of them can't be compiled.
    """

    def __init__(self, patterns: Iterable[Pattern], named: Patterns, where: str) -> None:
        self._tests = [_test(pattern, named, where) for pattern in patterns]

    def __bool__(self) -> bool:
        return bool(self._tests)

    def hold(self, document: Document) -> bool:
        """Say whether all hold; without any they do.

        Raises:
            EvaluationFault: when one can't be evaluated. Whoever asks must deny.
        """
        if not self._tests:
            return True
        roots = document.roots()
        return all(test(roots) for test in self._tests)


def _test(pattern: Pattern, named: Patterns, where: str) -> Test:
    if pattern.predicate is not None:
        return Expression(pattern.predicate, where).holds
    if pattern.patternRef is not None:
        if pattern.patternRef not in named:
            raise PolicyFault(f"{where}: patternRef '{pattern.patternRef}' is not in 'patterns'")
        return _every([_comparison(one, where) for one in named[pattern.patternRef]])
    if pattern.all is not None:
        return _every([_test(one, named, where) for one in pattern.all])
    if pattern.any is not None:
        return _some([_test(one, named, where) for one in pattern.any])
    assert pattern.selector is not None
    assert pattern.operator is not None
    comparison = Comparison(
        selector=pattern.selector, operator=pattern.operator, value=pattern.value
    )
    return _comparison(comparison, where)


def _every(tests: list[Test]) -> Test:
    return lambda roots: all(test(roots) for test in tests)


def _some(tests: list[Test]) -> Test:
    """Return whether one holds. As with CEL's `||`, a fault counts only where none does."""

    def test(roots: Roots) -> bool:
        fault: EvaluationFault | None = None
        for one in tests:
            try:
                if one(roots):
                    return True
            except EvaluationFault as found:
                fault = found
        if fault is not None:
            raise fault
        return False

    return test


def _comparison(pattern: Comparison, where: str) -> Test:
    selector, wanted = Selector(pattern.selector, where), pattern.value
    if pattern.operator == "matches":
        try:
            matches(wanted, "")
        except EvaluationFault:
            raise PolicyFault(f"{where}: {wanted!r} is not a regular expression") from None
    tests: dict[str, Callable[[Any], bool]] = {
        "eq": lambda found: written(found) == wanted,
        "neq": lambda found: written(found) != wanted,
        "incl": lambda found: _includes(found, wanted),
        "excl": lambda found: not _includes(found, wanted),
        "matches": lambda found: matches(wanted, written(found)),
    }
    test = tests[pattern.operator]
    return lambda roots: test(selector.value(roots))


def _includes(found: Any, wanted: str) -> bool:
    """Say whether a list has a value; one value is a list of it, as in Authorino."""
    if found is None:
        return False
    listed = found if isinstance(found, list | tuple) else [found]
    return any(written(item) == wanted for item in listed)


class Computed:
    """A value of a policy.

    Raises:
        PolicyFault: when it can't be compiled.
    """

    def __init__(self, value: Value, where: str) -> None:
        self._fixed = value.value
        self._compiled: Expression | Selector | None = None
        if value.expression is not None:
            self._compiled = Expression(value.expression, where)
        elif value.selector is not None:
            self._compiled = Selector(value.selector, where)

    def of(self, document: Document) -> Any:
        """Return the value for a request.

        Raises:
            EvaluationFault: when an expression has none.
        """
        if self._compiled is None:
            return self._fixed
        return self._compiled.value(document.roots(self._compiled.names))


def computed(values: Mapping[str, Value], where: str) -> dict[str, Computed]:
    """Compile values by name."""
    return {name: Computed(value, f"{where}.{name}") for name, value in values.items()}
