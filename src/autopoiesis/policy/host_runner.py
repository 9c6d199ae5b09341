"""Running one call of a policy's module: afresh, metered, and with an answer for whatever happens.

Each call runs the module in a new namespace, with the builtins and imports that `allowed` lists and no others, while
the lines of the policy are counted. None of this is the wall: the restricted builtins save honest code from mistakes,
the kernel's layers (`limits`) stop the rest.
"""

from __future__ import annotations

import builtins
import random
import sys
from collections.abc import Callable
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

import numpy as np

import autopoiesis.policy as interface
from autopoiesis.policy import tools
from autopoiesis.policy.allowed import BUILTINS, STANDARD_MODULES, reachable
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.host_messages import (
    Adopt,
    Adopted,
    Call,
    CallAnswer,
    Check,
    Checked,
    Failed,
    Plan,
    Planned,
    Trigger,
    Triggered,
    plain_decision,
    plain_memory,
)
from autopoiesis.policy.interface import Decision, Estimator, ServingState, serving_state
from autopoiesis.policy.meter import Meter, MeteredEstimator
from autopoiesis.policy.shared import Shared, sets_attributes

POLICY_FILE = "<policy>"
REASON_CHARACTERS = 500

PRELOADED = (
    *STANDARD_MODULES, "numpy", "numpy.fft", "numpy.linalg", "numpy.ma", "numpy.polynomial", "numpy.random",
    "unicodedata",
)  # fmt: skip
"""Imported by the template, because a locked child can load no module any more, not even one that numpy or (for a name
beyond ASCII) the parser loads late."""

MODULE_NAME = "policy_module"


class LineBudgetExceeded(BaseException):
    """Raised inside the policy; not an Exception, so that `except Exception` in a loop does not swallow it."""


def policy_builtins() -> dict[str, Any]:
    """The `__builtins__` of a policy module."""
    public = ModuleType("autopoiesis.policy")
    public.__dict__.update({name: getattr(interface, name) for name in interface.__all__}, tools=tools)
    package = ModuleType("autopoiesis")
    package.__dict__["policy"] = public

    def import_allowed(
        name: str, globals: Any = None, locals: Any = None, fromlist: tuple[str, ...] | None = (), level: int = 0
    ) -> ModuleType:
        if level == 0 and name == "autopoiesis.policy":
            return public if fromlist else package
        if level == 0 and name == "autopoiesis.policy.tools":
            return tools if fromlist else package
        # numpy's own modules, which it loads when a method is first called, with the builtins of whoever calls it.
        if level == 0 and (name == "__future__" or name.startswith("numpy.") or reachable(name) is not None):
            return __import__(name, None, None, fromlist or (), 0)
        raise ImportError(f"a policy cannot import {'.' * level}{name}")

    names = BUILTINS | {"__build_class__", "__debug__"}
    return {name: getattr(builtins, name) for name in sorted(names)} | {"__import__": import_allowed}


def line_counter(meter: Meter, budget: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that counts the lines of the policy module, and of no library it calls."""

    def in_policy(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            meter.lines += 1
            if meter.lines > budget:
                raise LineBudgetExceeded(f"more than {budget} lines of Python in one call")
        return in_policy

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return in_policy if frame.f_code.co_filename == POLICY_FILE else None

    return on_call


def describe(error: BaseException) -> str:
    """What went wrong and where in the policy, on one line; the text may be the policy's own and is cut."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == POLICY_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)
    except BaseException:
        text = "(its text cannot be shown)"
    where = f" (line {line} of the policy)" if line is not None else ""
    return f"{type(error).__name__}: {text[:REASON_CHARACTERS]}{where}"


class PolicyRunner:
    """One policy in a locked child: compiles it once, runs its module afresh for every call."""

    def __init__(self, source: str, line_budget: int, factory: Callable[[bytes], Estimator]) -> None:
        self._source = source
        self._line_budget = line_budget
        self._factory = factory
        self._builtins = policy_builtins()
        # Dataclasses look up the module of the class they are made from.
        sys.modules[MODULE_NAME] = ModuleType(MODULE_NAME)
        self._code: CodeType | None = None
        self._shared: Shared | None = None
        self._belief: bytes | None = None
        self._estimator: Estimator | None = None

    def answer(self, call: Call) -> CallAnswer:
        meter = Meter()
        try:
            answer = self._run(call, meter)
            # A policy may have swallowed the exception; it does not get away with it.
            if meter.lines > self._line_budget:
                raise LineBudgetExceeded(f"more than {self._line_budget} lines of Python in one call")
            return answer
        except BaseException as error:
            return Failed(call.ticket, describe(error), meter.read())
        finally:
            sys.settrace(None)

    def _run(self, call: Call, meter: Meter) -> CallAnswer:
        match call:
            case Check():
                return Checked(call.ticket, tuple(check_policy(self._source)), meter.read())
            case Trigger():
                wanted = self._call("should_reschedule", self._state(call, meter), meter)
                if not isinstance(wanted, bool | np.bool_):
                    raise TypeError(f"should_reschedule must return a bool, got {type(wanted).__name__}")
                return Triggered(call.ticket, bool(wanted), meter.read())
            case Plan():
                decision = self._call("plan", self._state(call, meter), meter)
                if type(decision) is not Decision:
                    raise TypeError(f"plan must return a Decision, got {type(decision).__name__}")
                return Planned(call.ticket, plain_decision(decision), meter.read())
            case Adopt():
                kept = self._call("adopt", plain_memory(call.memory), meter, absent={})
                return Adopted(call.ticket, plain_memory(kept), meter.read())

    def _call(self, name: str, argument: Any, meter: Meter, absent: Any = None) -> Any:
        if self._code is None:
            self._code = compile(self._source, POLICY_FILE, "exec", dont_inherit=True)
            self._shared = Shared() if sets_attributes(self._code) else None
        # Shared generators would otherwise carry state from call to call: `statistics` draws from that of `random`.
        random.seed(0)
        np.random.seed(0)
        namespace: dict[str, Any] = {"__builtins__": dict(self._builtins), "__name__": MODULE_NAME}
        sys.settrace(line_counter(meter, self._line_budget))
        try:
            exec(self._code, namespace)
            function = namespace.get(name)
            if function is None and absent is None:
                raise AttributeError(f"the policy has no function {name!r}")
            return absent if function is None else function(argument)
        finally:
            sys.settrace(None)
            namespace.clear()
            if self._shared is not None:
                self._shared.restore()

    def _state(self, call: Trigger | Plan, meter: Meter) -> ServingState:
        if self._estimator is None or call.belief != self._belief:
            self._estimator, self._belief = self._factory(call.belief), call.belief
        return serving_state(call.observation, MeteredEstimator(self._estimator, meter))
