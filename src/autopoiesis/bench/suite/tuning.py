"""Human policies at their best: their parameters searched on days that nobody is measured on.

Every policy of the library with a file in `tuning/` gets the same number of trials: the setting that ships, then others
drawn from the product of the values that its file names. The scenario's objective decides, in the event model: the
fluid model has no routers, so weighted-scorers and the route of splitwise could not be tuned in it, and of a planner's
trial the planning is a large part in either model. The best few of one training day are compared on a second one, too.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np

from autopoiesis.cluster.catalog import parse_toml
from autopoiesis.errors import PolicyError
from autopoiesis.policy.library import library
from autopoiesis.policy.source import PolicySource

Setting = dict[str, float]
"""Constant of a policy's module → value."""


class Tuned(msgspec.Struct, frozen=True):
    """What came of a search."""

    setting: Setting
    """The best one found; empty where it is what ships."""
    trials: int
    scores: list[float | None]
    """The objective on every training day, smaller is better; None for infinite."""


@cache
def spaces() -> dict[str, dict[str, list[float]]]:
    """Policy → parameter → values to try, for every policy that has parameters. Raises PolicyError for a file that
    does not fit its policy."""
    found = {}
    for entry in sorted((files(__package__) / "tuning").iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".toml"):
            continue
        name = entry.name.removesuffix(".toml")
        tables = parse_toml(entry.read_text("utf-8"), entry.name)
        parameters = {key: [float(value) for value in values] for key, values in tables["parameters"].items()}
        source = library().get(name)
        if source is None:
            raise PolicyError(f"tuning/{entry.name}: the library has no policy {name!r}; rename the file")
        for constant, value in shipped(source, parameters).items():
            if value not in parameters[constant]:
                raise PolicyError(f"tuning/{entry.name}: {constant} ships as {value:g}; add that to its values")
        if parameters:
            found[name] = parameters
    return found


def shipped(source: PolicySource, names: Mapping[str, object]) -> Setting:
    """The values that a policy's module gives these constants. Raises PolicyError for one that it does not have."""
    values = {
        node.targets[0].id: float(node.value.value)
        for node in ast.parse(source.text).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, int | float)
    }
    missing = [name for name in names if name not in values]
    if missing:
        raise PolicyError(f"policy {source.name!r}: has no numeric constant {missing[0]!r} at module level")
    return {name: values[name] for name in names}


def with_setting(source: PolicySource, setting: Setting) -> PolicySource:
    """The policy with these constants; whole numbers stay whole. The text is otherwise as it was, comments included."""
    shipped(source, setting)
    lines = source.text.splitlines(keepends=True)
    for node in ast.parse(source.text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in setting:
            assert isinstance(node.value, ast.Constant)
            value = setting[node.targets[0].id]
            text = str(int(value)) if isinstance(node.value.value, int) and value == int(value) else repr(float(value))
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line[: node.value.col_offset] + text + line[node.value.end_col_offset :]
    return PolicySource(source.name, "".join(lines))


def settings(name: str, trials: int, seed: int) -> list[Setting]:
    """At most `trials` settings of a policy, the one that ships first, the others drawn without repetition."""
    space = spaces()[name]
    first = shipped(library()[name], space)
    others = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    others = [setting for setting in others if setting != first]
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    order = np.random.default_rng([seed, digest]).permutation(len(others))
    return [first, *(others[i] for i in order[: trials - 1])]


def search(name: str, trials: int, finalists: int, seed: int, days: Sequence[Callable[[PolicySource], float]]) -> Tuned:
    """The best setting of a policy. Each of `days` serves a policy on a training day: its score, smaller is better,
    infinite where it failed.

    The finalists are the best of the first day, and none that failed on it unless all did. They are compared on all
    days with what ships, which stays where none is better.
    """
    source = library()[name]
    tried = settings(name, trials, seed)
    scores: list[list[float]] = [[days[0](with_setting(source, setting))] for setting in tried]
    sound = [i for i in range(len(tried)) if math.isfinite(scores[i][0])] or range(len(tried))
    compared = sorted({0, *sorted(sound, key=lambda i: (scores[i][0], i))[:finalists]})
    for i in compared:
        scores[i] += [day(with_setting(source, tried[i])) for day in days[1:]]
    relative = {i: _relative(scores[i], scores[0]) for i in compared}
    best = min(relative, key=lambda i: (relative[i], i))
    kept = [value if math.isfinite(value) else None for value in scores[best]]
    return Tuned({} if best == 0 else tried[best], len(tried), kept)


def strongest(tuned: Mapping[str, Tuned]) -> str:
    """The policy that did best on the training days; by name where several did."""

    def worth(name: str) -> tuple[float, str]:
        return sum(math.inf if value is None else value for value in tuned[name].scores), name

    return min(tuned, key=worth)


def _relative(scores: Sequence[float], to: Sequence[float]) -> float:
    """Mean over the days of score ÷ score to compare with, 1 being as good, 0 the best and infinite the worst.

    Where what is compared with failed, every measured score is the best; where it is 0, every other is the worst.
    """
    return sum(_ratio(ours, theirs) for ours, theirs in zip(scores, to, strict=True)) / len(scores)


def _ratio(ours: float, theirs: float) -> float:
    if ours == theirs:
        return 1.0
    if theirs == math.inf:
        return 0.0
    return ours / theirs if theirs > 0 else math.inf
