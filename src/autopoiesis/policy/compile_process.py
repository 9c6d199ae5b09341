"""The other side of the compiler: a process that turns texts of policies into machine code, one after the other.

`python -m autopoiesis.policy.compile_process FD NICENESS`. It runs no policy code, imports numba when it starts, and
ends with the connection, that is, with the process that made it.
"""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from autopoiesis.errors import PolicyError
from autopoiesis.policy import limits
from autopoiesis.policy.compile_messages import Compile, Objects, Uncompiled
from autopoiesis.policy.frames import FRAME, framed
from autopoiesis.policy.route import object_code


def answer(text: str) -> Objects | Uncompiled:
    """What a module's functions compile to, or the refusals of the grammar."""
    try:
        return Objects(object_code(text, "route"), object_code(text, "priority"))
    except PolicyError as error:
        return Uncompiled(str(error))
    except Exception as error:
        return Uncompiled(f"the policy module cannot be compiled: {type(error).__name__}: {error}")


def serve(connection: socket.socket) -> None:
    """Answer until nobody asks any more."""
    with connection.makefile("rb") as questions:
        while len(header := questions.read(FRAME.size)) == FRAME.size:
            body = questions.read(*FRAME.unpack(header))
            connection.sendall(framed(answer(_question.decode(body).text)))


_question = msgspec.msgpack.Decoder(Compile)


def main() -> None:
    limits.die_with_parent()
    os.nice(int(sys.argv[2]))
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
