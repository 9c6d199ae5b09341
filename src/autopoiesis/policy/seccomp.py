"""The system calls that are left to a process that runs a policy's code: a positive list, by seccomp's filter mode."""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Iterable
from functools import cache
from typing import Any

_CALLS = {
    # name: (x86-64, aarch64); -1 where an architecture lacks the call.
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "poll": (7, -1),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "times": (100, 153),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "ppoll": (271, 73),
    "getcpu": (309, 168),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
"""All that a computing process needs once its modules are imported. `getrandom` is left out on purpose: a policy
that draws unseeded random numbers would not do the same twice."""

_PR_GET_SECCOMP, _PR_SET_SECCOMP = 21, 22

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine → column of `_CALLS`, AUDIT_ARCH number."""

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL_PROCESS, _ERRNO_EPERM, _ALLOW = 0x80000000, 0x00050000 | 1, 0x7FFF0000


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter_program(numbers: Iterable[int], architecture: int) -> bytes:
    """Classic BPF over `struct seccomp_data`: another architecture is killed, a listed number allowed, the rest EPERM.

    An x32 call has bit 30 set in its number, so it matches nothing in the list.
    """
    allowed = sorted(number for number in numbers if number >= 0)
    instruction = struct.Struct("=HBBI")
    program = [
        instruction.pack(_LOAD, 0, 0, 4),
        instruction.pack(_JUMP_IF_EQUAL, 1, 0, architecture),
        instruction.pack(_RETURN, 0, 0, _KILL_PROCESS),
        instruction.pack(_LOAD, 0, 0, 0),
    ]
    for position, number in enumerate(allowed):
        program.append(instruction.pack(_JUMP_IF_EQUAL, len(allowed) - position, 0, number))
    program.append(instruction.pack(_RETURN, 0, 0, _ERRNO_EPERM))
    program.append(instruction.pack(_RETURN, 0, 0, _ALLOW))
    return b"".join(program)


@cache
def filter_of_this_machine() -> tuple[Any, Any] | None:
    """The C library and the filter as it takes it; None where the system calls of the architecture are not known.

    Made once, by the process that forks the others: each would write to as many pages as this takes.
    """
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return None
    column, architecture = known
    code = _filter_program((numbers[column] for numbers in _CALLS.values()), architecture)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_GET_SECCOMP)
    program = _FilterProgram(len(code) // 8, ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p))
    # The structure holds an address alone; what is there must stay.
    program.code = code
    return libc, program


def filter_calls() -> bool:
    """Deny this process, and all that come of it, every other system call for good; whether the kernel took the filter.

    It takes one only from a process that can gain no privileges any more.
    """
    made = filter_of_this_machine()
    if made is None:
        return False
    libc, program = made
    taken = libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(program), ctypes.c_ulong(0)) == 0
    return bool(taken)
