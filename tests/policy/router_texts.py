"""Sources of `route` and `priority` that the grammar accepts, made at random, and inputs that hurt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from autopoiesis.errors import PolicyError
from autopoiesis.policy.interface import REPLICA_FIELDS, REQUEST_FIELDS
from autopoiesis.policy.route import operations_bound

LITERALS = ("0", "1", "2", "3", "0.5", "-1", "1.5", "1e300", "-0.0", "inf", "LIMIT", "SCALE", "9007199254740992")
VALUES = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 2.0, 2.0, 3.0, 0.5, -1.5, 1e308, 5e-324, 1e17, 710.0)
HEADER = "interface = 1\nLIMIT = 4\nSCALE = -2.5\n\n"


class Writer:
    """Writes one function. Every choice comes from `random`, and whatever it writes must be accepted."""

    def __init__(self, random: Random, replicas: bool) -> None:
        self.random = random
        self.replicas = replicas
        self.lines: list[str] = []
        self.margin = 1
        self.loops = 0
        self.count = 0
        self.floats: list[str] = []
        self.indices: list[str] = []
        self.bools: list[str] = []
        self.views: list[str] = []

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.margin + line)

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Names bound inside are not to be read after it."""
        kept = self.floats[:], self.indices[:], self.bools[:], self.views[:]
        yield
        self.floats, self.indices, self.bools, self.views = kept

    @contextmanager
    def loop(self, views: list[str]) -> Iterator[None]:
        self.loops += 1
        with self.scope():
            self.views += views
            yield
        self.loops -= 1

    def real(self, depth: int) -> str:
        """A float expression."""
        forms = ["field", "field", "local"]
        if depth > 0:
            forms += ["binary", "binary", "divide", "function", "conditional", "extremum"]
            if self.replicas and self.loops < 2:
                forms += ["sum", "generator"]
        match self.random.choice(forms):
            case "local" if self.floats:
                return self.random.choice(self.floats)
            case "binary":
                operator = self.random.choice(["+", "-", "*", "//", "%"])
                return f"({self.real(depth - 1)} {operator} {self.number(depth - 1)})"
            case "divide":
                return f"({self.number(depth - 1)} / {self.number(depth - 1)})"
            case "function":
                return f"{self.random.choice(['abs', 'sqrt', 'log', 'exp', '-', '+'])}({self.real(depth - 1)})"
            case "conditional":
                return f"({self.real(depth - 1)} if {self.condition(depth - 1)} else {self.number(depth - 1)})"
            case "extremum":
                name = self.random.choice(["min", "max"])
                return f"{name}({self.number(depth - 1)}, {self.real(depth - 1)}, {self.number(depth - 1)})"
            case "sum":
                return f"sum({self.generator(depth - 1, 'float')})"
            case "generator":
                return f"{self.random.choice(['min', 'max'])}({self.generator(depth - 1, 'float')})"
        if self.views and self.random.random() < 0.7:
            return f"{self.random.choice(self.views)}.{self.random.choice(REPLICA_FIELDS)}"
        return f"request.{self.random.choice(REQUEST_FIELDS)}"

    def index(self, depth: int) -> str:
        """An index expression, mostly of small size."""
        forms = ["literal", "local"]
        if self.replicas:
            forms += ["len"]
        if depth > 0:
            forms += ["arithmetic", "floor", "conditional"]
            if self.replicas and self.loops < 2:
                forms += ["sum", "keyed"]
        match self.random.choice(forms):
            case "local" if self.indices:
                return self.random.choice(self.indices)
            case "local" if self.views:
                return f"{self.random.choice(self.views)}.index"
            case "len":
                return "len(replicas)"
            case "arithmetic":
                operator = self.random.choice(["+", "-", "*", "//", "%"])
                return f"({self.index(depth - 1)} {operator} {self.index(depth - 1)})"
            case "floor":
                return f"floor({self.number(depth - 1)})"
            case "conditional":
                return f"({self.index(depth - 1)} if {self.condition(depth - 1)} else {self.index(depth - 1)})"
            case "sum":
                return f"sum({self.generator(depth - 1, 'index')})"
            case "keyed":
                return f"{self.view(depth - 1)}.index"
        return self.random.choice(["0", "1", "2", "-1"])

    def number(self, depth: int) -> str:
        match self.random.randrange(5):
            case 0:
                return self.random.choice(LITERALS)
            case 1:
                return self.index(depth)
        return self.real(depth)

    def condition(self, depth: int) -> str:
        forms = ["compare", "local"]
        if depth > 0:
            forms += ["chain", "and", "not"]
        operators = ["<", "<=", ">", ">=", "==", "!="]
        match self.random.choice(forms):
            case "local" if self.bools:
                return self.random.choice(self.bools)
            case "chain":
                sides = [self.number(depth - 1) for _ in range(3)]
                return f"({sides[0]} {self.random.choice(operators)} {sides[1]} <= {sides[2]})"
            case "and":
                return f"({self.condition(depth - 1)} {self.random.choice(['and', 'or'])} {self.condition(depth - 1)})"
            case "not":
                return f"(not {self.condition(depth - 1)})"
        return f"({self.number(depth - 1)} {self.random.choice(operators)} {self.number(depth - 1)})"

    def view(self, depth: int) -> str:
        """A replica; needs replicas and, unless a view is at hand, room for a loop."""
        if self.views and self.random.random() < 0.3:
            return self.random.choice(self.views)
        if self.loops == 2 or self.random.random() < 0.3:
            return f"replicas[{self.index(depth - 1)}]"
        source = "replicas"
        if self.random.random() < 0.3:
            with self.loop(["s"]):
                source = f"(s for s in replicas if {self.condition(depth - 1)})"
        with self.loop(["q"]):
            key = self.number(depth - 1)
        return f"{self.random.choice(['min', 'max'])}({source}, key=lambda q: {key})"

    def generator(self, depth: int, kind: str) -> str:
        name = self.name("g")
        head = f"for {name} in replicas"
        with self.loop([name]):
            if self.random.random() < 0.3:
                self.indices.append(f"k{name}")
                head = f"for k{name}, {name} in enumerate(replicas)"
            value = self.real(depth) if kind == "float" else self.index(depth)
            condition = f" if {self.condition(depth)}" if self.random.random() < 0.4 else ""
        return f"{value} {head}{condition}"

    def statement(self, depth: int) -> None:
        forms = ["float", "index", "bool", "update", "if"]
        if self.replicas:
            forms += ["view"]
            if self.loops < 2 and depth > 0:
                forms += ["for", "for"]
        match self.random.choice(forms):
            case "float":
                value, name = self.real(2), self.name("x")
                self.emit(f"{name} = {value}")
                self.floats.append(name)
            case "index":
                value, name = self.index(2), self.name("i")
                self.emit(f"{name} = {value}")
                self.indices.append(name)
            case "bool":
                value, name = self.condition(2), self.name("b")
                self.emit(f"{name} = {value}")
                self.bools.append(name)
            case "view":
                value, name = self.view(2), self.name("v")
                self.emit(f"{name} = {value}")
                self.views.append(name)
            case "update" if self.floats:
                target = self.random.choice(self.floats)
                self.emit(f"{target} {self.random.choice(['+=', '-=', '*=', '/='])} {self.number(2)}")
            case "for" if depth > 0:
                self.loop_statement(depth)
            case "if" if depth > 0:
                self.emit(f"if {self.condition(2)}:")
                self.block(depth - 1, may_return=self.replicas)
                if self.random.random() < 0.5:
                    self.emit("else:")
                    self.block(depth - 1, may_return=False)

    def loop_statement(self, depth: int) -> None:
        total, name = self.name("x"), self.name("r")
        self.emit(f"{total} = 0")
        self.floats.append(total)
        counter = self.name("k") if self.random.random() < 0.5 else None
        self.emit(f"for {counter}, {name} in enumerate(replicas):" if counter else f"for {name} in replicas:")
        with self.loop([name]):
            if counter:
                self.indices.append(counter)
            self.margin += 1
            for _ in range(self.random.randint(0, 2)):
                self.statement(depth - 1)
            # A quotient is a float, also where the local itself, so far a literal, is what is divided.
            self.emit(f"{total} += {self.real(1)} / 2")
            if self.random.random() < 0.4:
                self.emit(f"if {self.condition(1)}:")
                self.emit("    " + self.random.choice(["break", "continue", f"return {name}.index"]))
            self.margin -= 1

    def block(self, depth: int, may_return: bool) -> None:
        self.margin += 1
        with self.scope():
            self.emit(f"{self.name('unused')} = 0.5")
            for _ in range(self.random.randint(0, 2)):
                self.statement(depth)
            if may_return and self.random.random() < 0.3:
                self.emit(f"return {self.random.choice(['HOLD', 'SHED', self.index(1)])}")
        self.margin -= 1


def route_text(random: Random) -> str:
    """A module with a `route` that keeps within the budget of operations."""
    while True:
        text = any_route_text(random)
        try:
            operations_bound(text)
        except PolicyError as error:
            if "operations" not in str(error) and "branches" not in str(error):
                raise
        else:
            return text


def any_route_text(random: Random) -> str:
    """A module with a `route` that only its costs can speak against."""
    writer = Writer(random, replicas=True)
    for _ in range(random.randint(1, 3)):
        writer.statement(2)
    last = writer.view(2) + ".index" if random.random() < 0.6 else f"({writer.index(2)}) % len(replicas)"
    writer.emit(f"return {last}")
    head = "def route(request: Request, replicas: list[ReplicaView]) -> int:\n"
    return HEADER + head + "\n".join(writer.lines) + "\n"


def priority_text(random: Random) -> str:
    """A module with a `priority`."""
    writer = Writer(random, replicas=False)
    for _ in range(random.randint(1, 4)):
        writer.statement(2)
    writer.emit(f"return {writer.number(4)}")
    return HEADER + "def priority(request: Request) -> float:\n" + "\n".join(writer.lines) + "\n"


def values(random: Random, count: int) -> list[float]:
    """Field values: ordinary ones, equal ones, and those that hurt."""
    style = random.randrange(3)
    if style == 0:
        return [float(random.randrange(4)) for _ in range(count)]
    if style == 1:
        return [random.choice(VALUES) for _ in range(count)]
    return [random.uniform(-5, 20) if random.random() < 0.9 else random.choice(VALUES) for _ in range(count)]
