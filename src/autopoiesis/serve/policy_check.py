"""The process that checks a policy module for a gateway: the text on stdin, what is to say of it as JSON on stdout."""

from __future__ import annotations

import sys

import msgspec

from autopoiesis.errors import PolicyError
from autopoiesis.policy.admission import check_alone
from autopoiesis.policy.reads import replica_fields_read
from autopoiesis.policy.source import SOURCE_BYTES, PolicySource
from autopoiesis.serve.policies import Checked


def check(name: str, text: str) -> Checked:
    """What a gateway needs to know of a text from outside."""
    try:
        refusals = tuple(f"policy {name}: {refusal}" for refusal in check_alone(text, name, own=True))
        if refusals:
            return Checked(refusals=refusals)
        return Checked(PolicySource(name, text).identity, replica_fields_read(text))
    except PolicyError as error:
        return Checked(refusals=(str(error),))


def main() -> None:
    content = sys.stdin.buffer.read(SOURCE_BYTES + 1)
    checked = check(sys.argv[1], content.decode("utf-8", "surrogatepass"))
    sys.stdout.buffer.write(msgspec.json.encode(checked))


if __name__ == "__main__":
    main()
