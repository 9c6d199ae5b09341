"""Routers that would stall, blow up, escape or lie, each with what its refusal must say."""

from __future__ import annotations

HEADER = """interface = 1
LIMIT = 8
def should_reschedule(state):
    return False
def plan(state):
    return None
"""
FIRST_LINE = HEADER.count("\n") + 2
"""The line of the first statement of a body."""


def router(body: str) -> str:
    """A policy module whose `route` has this body."""
    return f"{HEADER}def route(request, replicas):\n" + "".join(f"    {line}\n" for line in body.split("\n"))


def nested(opening: str, core: str, closing: str, times: int) -> str:
    return opening * times + core + closing * times


BODIES = {
    # numbers and texts that grow
    "squarings of text": ("x = 'a'\nfor r in replicas:\n    x = x + x\nreturn 0", "`'a'` is not part of the language"),
    "a power": ("return floor(9 ** 9 ** 9)", "`x * x` for a power"),
    "a shift": ("return 1 << 1000000000", "is not part of the language"),
    "a text times a number": ("x = 'a' * 1000000000\nreturn 0", "`'a'` is not part of the language"),
    "list doubling": ("x = [0]\nfor r in replicas:\n    x = x + x\nreturn 0", "`[0]` is not part of the language"),
    "list doubling in place": ("x = [0]\nx += x\nreturn 0", "`[0]` is not part of the language"),
    "a list of replicas": ("x = replicas * 1000000\nreturn 0", "`replicas` alone is not a value"),
    "sum of lists": ("x = sum([[0] for r in replicas], [])\nreturn 0", "takes exactly one argument"),
    "sum of a list": ("return sum([1, 2])", "must be replicas or one generator"),
    "a huge format": ("x = f'{1:1000000000}'\nreturn 0", "is not part of the language"),
    "an old huge format": ("x = '%1000000000d' % 1\nreturn 0", "is not part of the language"),
    "a huge integer": (f"return {'9' * 15_000}", "has more than 100 characters"),
    "a huge hexadecimal integer": (f"return 0x{'f' * 15_000}", "has more than 100 characters"),
    "a float beyond all": ("return floor(1" + "0" * 99 + "e300)", "has more than 100 characters"),
    "many operations": (
        "x = 0.0\nfor r in replicas:\n    for s in replicas:\n"
        + "        x += r.running * s.running\n" * 20
        + "return 0",
        "operations, which is",
    ),
    "many branches": (
        "x = 0.0\n" + "x += min(r.running for r in replicas)\n" * 100 + "return 0",
        "branches once written",
    ),
    "many statements": ("x = 1\n" * 1_500 + "return 0", "nodes, at most 2000"),
    "a long chain of kinds": (
        "\n".join(f"x{i} = 0" for i in range(40))
        + "\nfor r in replicas:\n"
        + "\n".join(f"    x{i} = x{i + 1}" for i in range(39))
        + "\n    x39 = 0.5\nreturn 0",
        "in too long a chain",
    ),
    # nesting and chains that break parsers
    "brackets": ("return " + nested("(", "0", ")", 7_000), "nests more than 30 brackets"),
    "brackets in turn": ("return " + "([{" * 5_000, "nests more than 30 brackets"),
    "calls in calls": ("return " + nested("floor(", "0", ")", 2_000), "nests more than 30 brackets"),
    "subscripts in subscripts": ("return " + nested("replicas[", "0", "].index", 29), "levels of nesting"),
    "signs in signs": ("return " + nested("-(", "0", ")", 29), "levels of nesting"),
    "conditions in conditions": ("return " + nested("(0 if 1 < 2 else ", "0", ")", 29), "chains more than 100"),
    "minus signs": ("return " + "-" * 10_000 + "1", "chains more than 100"),
    "pluses": ("return " + "+" * 15_000 + "1", "chains more than 100"),
    "nots": ("return 0 if " + "not " * 10_000 + "True else 1", "chains more than 100"),
    "a sum of ten thousand": ("return 1" + "+1" * 10_000, "chains more than 100"),
    "dots": ("return request" + ".model" * 10_000, "chains more than 100"),
    "comparisons": ("return 0 if 1" + "<1" * 10_000 + " else 1", "chains more than 100"),
    "ands": ("return 0 if " + "True and " * 5_000 + "True else 1", "chains more than 100"),
    "conditionals": ("return " + "1 if True else " * 4_000 + "1", "chains more than 100"),
    "conditionals without blanks": ("return " + "1if 1else " * 6_000 + "1", "chains more than 100"),
    "lambdas": ("return " + "lambda:" * 9_000 + "0", "chains more than 100"),
    "powers": ("return 2" + "**2" * 10_000, "chains more than 100"),
    "values side by side": ("return " + "a b " * 10_000, "chains more than 100"),
    "branches in branches": (
        "\n".join("    " * i + "if True:" for i in range(50)) + "\n" + "    " * 50 + "return 0",
        "is nested more than 20 deep",
    ),
    "elifs": (
        "if LIMIT < 1:\n    return 0\n" + "elif LIMIT < 1:\n    return 0\n" * 900 + "return 1",
        "more than 100 times",
    ),
    "f-strings in f-strings": ("return f'" + "{f'" * 5_000, "ends within its braces"),
    "signs in an f-string": ("return f'{" + "-" * 9_000 + "1}'", "chains more than 100"),
    "many expressions in an f-string": ("return f'" + "{r}" * 5_000 + "'", "tokens up to here"),
    "a string without an end": ("return '''" + "\\'''" * 4_000, "never ends"),
    # Unicode
    "a null byte": ("return 0 \0", "control character U+0000"),
    "text that runs backwards": ("return 0  # \u202e nruter", "control character U+202E"),
    "a lone surrogate": ("x = '\ud800'\nreturn 0", "lone surrogates"),
    "a name that looks like another": ("return rеplicas[0].index", "indexes something else"),
    "a name with two spellings": ("ｉｎｆ = 0\nreturn ｉｎｆ", "has the name of something else"),
    # what never ends, or goes where nobody looks
    "while": ("while True:\n    x = 1\nreturn 0", "`for r in replicas`"),
    "a loop over a loop": (
        "for r in (s for s in replicas for t in replicas):\n    x = 1\nreturn 0",
        "does not go over replicas",
    ),
    "a third loop": (
        "x = 0\nfor r in replicas:\n    for s in replicas:\n        x += sum(1 for t in replicas)\nreturn 0",
        "deeper",
    ),
    "a third loop in a key": (
        "return min(replicas, key=lambda r: min(s.running + min(t.running for t in replicas) for s in replicas)).index",
        "deeper",
    ),
    "range": ("for i in range(1000000000):\n    x = 1\nreturn 0", "does not go over replicas"),
    "recursion": ("return route(request, replicas)", "is not listed"),
    "recursion through a key": ("return min(replicas, key=lambda r: route(request, replicas)).index", "is not listed"),
    "self-application": ("return (lambda f: f(f))(lambda f: f(f))", "is not listed"),
    "a fixed point": ("f = lambda x: x(x)\nreturn f(f)", "as `key=` of `min` or `max`"),
    "a lambda with a default": ("return min(replicas, key=lambda r, x=0: r.running).index", "must take one replica"),
    "a lambda with a star": ("return min(replicas, key=lambda *r: 0).index", "must take one replica"),
    "a key that is a function": ("return min(replicas, key=abs).index", "is no form of `min`"),
    "a generator as a value": ("x = (r.running for r in replicas)\nreturn 0", "`min`, `max` or `sum`"),
    "a generator in len": ("return len(r for r in replicas)", "something else than replicas"),
    "two generators in one": ("return floor(sum(1 for r in replicas for s in replicas))", "one generator"),
    "a generator of generators": ("return floor(sum(1 for r in (s for s in replicas)))", "must go over replicas"),
    "a list comprehension": ("x = [r.running for r in replicas]\nreturn 0", "a generator inside"),
    "a dict comprehension": ("x = {r.running: r for r in replicas}\nreturn 0", "is not part of the language"),
    "an asynchronous generator": ("return floor(sum(1 async for r in replicas))", "the syntax is wrong|one generator"),
    "try": ("try:\n    x = 1\nexcept:\n    x = 2\nreturn x", "arithmetic never raises"),
    "try that hides a return": ("try:\n    return 0\nfinally:\n    return 1", "arithmetic never raises"),
    "with": ("with request as r:\n    return 0", "is not part of the language"),
    "match": ("match request:\n    case _:\n        return 0", "is not part of the language"),
    "a walrus": ("return (x := 0)", "an assignment on a line of its own"),
    "a star": ("return min(*replicas).index", "is not listed"),
    "two stars": ("return min(replicas, **request).index", "is no form of `min`"),
    "delete": ("x = 1\ndel x\nreturn 0", "is not part of the language"),
    "global": ("global LIMIT\nLIMIT = 1\nreturn 0", "is not part of the language"),
    "yield": ("x = yield\nreturn 0", "is not part of the language"),
    "await": ("return await request", "the syntax is wrong|is not part of the language"),
    "a class": ("class A:\n    pass\nreturn 0", "is not part of the language"),
    "an inner function": ("def f():\n    return f()\nreturn f()", "the expression in place"),
    # names and fields that are not there
    "a builtin": ("return eval('0')", "is not listed"),
    "an import by hand": ("return __import__('os').getpid()", "is not listed"),
    "a global name": ("return plan", "a module constant that is assigned one numeric literal"),
    "the module's names": ("return __builtins__", "is not known here"),
    "a shadowed builtin": ("min = max\nreturn 0", "has the name of something else"),
    "a shadowed parameter": ("replicas = request\nreturn 0", "has the name of something else"),
    "a shadowing loop": ("for len in replicas:\n    x = 1\nreturn 0", "has the name of something else"),
    "a shadowing key": ("return min(replicas, key=lambda request: 0).index", "must take one replica"),
    "an unlisted field of the request": ("return floor(request.output_tokens)", "is no field of a request"),
    "an unlisted field of a replica": ("return floor(replicas[0].price)", "is no field of a replica"),
    "the class of the request": ("return request.__class__.__base__", "is no field of a request"),
    "the class of a replica": ("return replicas[0].__class__.__subclasses__()", "is not listed"),
    "a field of a field": ("return request.model.real", "is asked of a float"),
    "a method": ("return replicas.index(replicas[0])", "is not listed"),
    "a field assigned": ("replicas[0].running = 0.0\nreturn 0", "another target than one local"),
    "a replica assigned": ("replicas[0] = replicas[1]\nreturn 0", "another target than one local"),
    "a slice": ("return len(replicas[1:])", "something else than replicas"),
    # kinds
    "a bool as an index": ("return True", "must be an index"),
    "a number as a condition": ("return 0 if request.model else 1", "must be true or false"),
    "a replica compared": ("return 0 if replicas[0] == replicas[1] else 1", "must be a number"),
    "two kinds in one local": ("x = True\nfor r in replicas:\n    x = r\nreturn 0", "a local has one kind"),
    "division by a loop": ("return 1 / replicas", "`replicas` alone is not a value"),
    "none": ("x = None\nreturn 0", "is not part of the language"),
    "a complex number": ("return floor(1j)", "is not part of the language"),
    "bytes": ("return b'a'[0]", "indexes something else"),
    "no answer": ("for r in replicas:\n    return r.index", "can end without an answer"),
}
"""Name → body of `route`, and a part of the refusal (or one of two, with `|` between)."""

TEXTS = {
    "a default that runs": (HEADER + "def route(request, replicas=plan(0)):\n    return 0\n", "without defaults"),
    "an annotation that runs": (
        HEADER + "def route(request: plan(0), replicas):\n    return 0\n",
        "is not the one shown",
    ),
    "a decorator that runs": (HEADER + "@plan\ndef route(request, replicas):\n    return 0\n", "no decorators"),
    "route as a lambda": (HEADER + "route = lambda request, replicas: 0\n", "is not one plain function"),
    "route twice": (router("return 0") + "route = plan\n", "is not one plain function"),
    "a constant bound twice": ("LIMIT = 9\n" + router("return LIMIT"), "is assigned one numeric literal"),
    "a builtin given another meaning": (
        "from math import exp as log\n" + router("return 0"),
        "has a meaning of its own",
    ),
    "64 KiB of brackets": ("(" * 65_536, "nests more than 30 brackets"),
    "more than 64 KiB": (router("return 0") + "#" * 65_536, "bytes, at most 65536"),
    "a million of signs": (router("return " + "-" * 1_000_000 + "1"), "bytes, at most 65536"),
    "64 KiB of statements": (router("return 0") + "x=1\n" * 16_000, "tokens up to here"),
    "a route of 20 kB": (router("return 0" + "#" * 20_000), "bytes, at most 16000"),
    "a route of 20 kB after other line ends": (
        router("return 0" + "#" * 20_000).replace("LIMIT", "# \x0c\u2028\x85\nLIMIT"),
        "bytes, at most 16000",
    ),
}
"""Name → whole module, and a part of the refusal."""
