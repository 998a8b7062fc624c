"""Rules across parameters, as workload.yaml declares them: which values do not go together."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping

from ._declaration import DeclarationError
from ._parameters import Parameter, Value

Parameters = Mapping[str, Parameter]
_FORMS = {"any_of", "not", "min", "max"}


def broken_rules(
    rules: Any, values: Mapping[str, Value], parameters: Parameters, source: str
) -> Iterator[str]:
    """What is wrong with ``values``, in the words of the command line. Raises
    :class:`DeclarationError` for a rule that makes no sense.
    """
    for number, rule in enumerate(_checked_rules(rules, source), 1):
        when, require = (_conditions(rule, side) for side in ("when", "require"))
        unknown = sorted({*when, *require} - {*parameters})
        if unknown or not require:
            what = "unknown parameter %s" % unknown[0] if unknown else "it requires nothing"
            raise DeclarationError("%s: rule %d: %s" % (source, number, what))
        if all(_holds(name, condition, values) for name, condition in when.items()):
            unmet = {n: c for n, c in require.items() if not _holds(n, c, values)}
            if unmet:
                yield _complaint(when, unmet, parameters, str(rule.get("why", "")))


def _checked_rules(rules: Any, source: str) -> List[Dict[str, Any]]:
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise DeclarationError("%s: rules: expected a list of {when, require, why}" % source)
    return rules


def _conditions(rule: Dict[str, Any], side: str) -> Dict[str, Dict[str, Any]]:
    """By parameter, each as a mapping of ``_FORMS``; a value, or a list, is short for any_of."""
    found = {}
    for name, value in (rule.get(side) or {}).items():
        condition = value if isinstance(value, dict) else {"any_of": value}
        if set(condition) - _FORMS:
            raise DeclarationError("a condition for %s has unknown keys: %r" % (name, condition))
        found[name] = {form: _listed(form, item) for form, item in condition.items()}
    return found


def _listed(form: str, value: Any) -> Any:
    return value if form in ("min", "max") or isinstance(value, list) else [value]


def _holds(name: str, condition: Dict[str, Any], values: Mapping[str, Value]) -> bool:
    """A bound may name another parameter."""
    value: Any = values[name]
    low, high = (
        values[bound] if isinstance(bound, str) else bound
        for bound in (condition.get("min"), condition.get("max"))
    )
    if value not in condition.get("any_of", [value]) or value in condition.get("not", []):
        return False
    return (low is None or low <= value) and (high is None or value <= high)


def _complaint(
    when: Dict[str, Any], unmet: Dict[str, Any], parameters: Parameters, why: str
) -> str:
    given, wanted = (
        " and ".join(
            _shown(parameters[name], condition, parameters) for name, condition in side.items()
        )
        for side in (when, unmet)
    )
    needs = "%s needs %s" % (given, wanted) if given else "%s is required" % wanted
    return "%s: %s" % (needs, why)


def _shown(parameter: Parameter, condition: Dict[str, Any], parameters: Parameters) -> str:
    """As it is written on the command line: ``--engine fused``, ``--steps of at least 1``."""
    parts = []
    if "any_of" in condition:
        parts.append(" or ".join(_option(parameter, value) for value in condition["any_of"]))
    if "not" in condition:
        others = " or ".join(map(str, condition["not"]))
        parts.append("%s other than %s" % (parameter.flag, others or "empty"))
    for form, words in (("min", "at least"), ("max", "at most")):
        bound = condition.get(form)
        if bound is not None:
            shown = parameters[bound].flag if isinstance(bound, str) else "%g" % bound
            parts.append("%s of %s %s" % (parameter.flag, words, shown))
    return " and ".join(parts)


def _option(parameter: Parameter, value: Value) -> str:
    if isinstance(value, bool):
        return parameter.flag if value else "--no-" + parameter.flag[2:]
    return "%s %s" % (parameter.flag, "''" if value == "" else value)
