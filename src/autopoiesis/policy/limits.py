"""What a process gives up before it runs a policy's code. Irrevocable, and by the standard library and ctypes alone.

Code that breaks out of Python (by introspection, through a bug of the interpreter) still runs in a process that can
compute, and answer on the one connection it holds, and nothing else. Six layers, each reported by `Wall` because a
kernel or a container may lack any of them:

* *nobody*: what root started goes on as a user without rights, so that files, limits and processes are not root's.
* *no network*: network and IPC namespaces with nothing in them, in a user namespace where root is not at hand.
* *rlimits*: memory, CPU time, no file may grow, no process may start, no core dump.
* *no new privileges*: no capability left, none to be had from set-uid programs, not traceable, dies with its parent.
* *Landlock*: a ruleset that handles every access and allows none: no path can be opened, made or removed, no TCP port
  bound or connected, no signal sent outside.
* *seccomp*: a positive list of system calls; all others answer EPERM. It alone denies sockets, exec, fork, threads,
  ptrace, and even opening a file to read.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from autopoiesis.policy.seccomp import filter_calls, filter_of_this_machine

try:
    import resource
except ImportError:
    # Windows has none, and nothing to put in its place; there is nothing to fork with either.
    POSIX = False
else:
    POSIX = True

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits of a process that runs policy code."""

    memory_bytes: int = 2 * GIB
    """Address space beyond what the process has when it is locked."""
    cpu_s: int = 1200
    """CPU time of the process, over all its calls."""


@dataclass(frozen=True, slots=True)
class Wall:
    """Which layers stand, each found by trying it."""

    nobody: bool
    """It is not root's, and has no capability."""
    no_network: bool
    """Not even the loopback interface can be reached."""
    rlimits: bool
    no_new_privileges: bool
    landlock: int
    """The version of Landlock's ABI, 0 where it is missing: TCP is its affair from 4 on, signals from 6 on."""
    seccomp: bool

    @property
    def holds(self) -> bool:
        """Whether code that has left Python can do no more than compute, for so long and in so much memory.

        seccomp alone denies files, sockets, processes and signals; Landlock does from ABI 6 on, where there is no
        network either. rlimits stop none of these, and nothing else stops a memory bomb.
        """
        return not self.lacks

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is required and missing, in words."""
        denied = self.seccomp or (self.landlock >= 6 and self.no_network)
        required = {
            "a bar to new privileges": self.no_new_privileges,
            "resource limits": self.rlimits,
            "seccomp (or Landlock ABI 6 and no network)": denied,
        }
        return tuple(layer for layer, stands in required.items() if not stands)


def lock_down(limits: Limits) -> Wall:
    """Give up what policy code must not have, for good. The process must have a single thread.

    Order matters: capabilities go before seccomp takes the calls that drop them, and Landlock is tried before
    seccomp would answer in its place.
    """
    linux = sys.platform == "linux"
    no_network = linux and _is_unreachable()
    limited = _set_rlimits(limits)
    privileges = linux and _drop_privileges()
    landlock = _restrict_paths() if privileges else 0
    seccomp = privileges and _filter_calls()
    return Wall(
        nobody=privileges and os.geteuid() != 0,
        no_network=no_network,
        rlimits=limited,
        no_new_privileges=privileges,
        landlock=landlock,
        seccomp=seccomp,
    )


def leave_network() -> None:
    """Move this process, and all that it forks from now on, to where there is no network and no IPC, if that can be.

    Call it once in the process that forks the others (a namespace costs a millisecond to make, and more to remove),
    after it has made all its files: in a user namespace without a mapping it can make none. It must have one thread.
    """
    if sys.platform == "linux":
        own = _CLONE_NEWNET | _CLONE_NEWIPC
        _libc().unshare(own if os.geteuid() == 0 else own | _CLONE_NEWUSER)


def fork() -> int:
    """`os.fork` without what Python does for threads after it, which costs a child a quarter of its start.

    Only for a process of one thread: there is no lock that another one could hold, and its thread is the child's. What
    draws random numbers goes on with the same state in every child. Raises OSError.
    """
    if sys.platform != "linux":
        return os.fork()
    pid = _python_libc().fork()
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(pid)


def rehearse() -> None:
    """Find out what forks of this process share with it, and do once what `lock_down` does and changes nothing."""
    _is_unreachable()
    _is_denied(lambda: os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY)))
    _address_space_bytes()
    _prctl(_PR_GET_DUMPABLE)
    filter_of_this_machine()


def become_nobody() -> None:
    """Give up being root, if that can be. Call it before `die_with_parent`, which a change of user undoes."""
    if sys.platform == "linux" and os.geteuid() == 0:
        # A container may have left root no capability for it, or a user namespace no such user.
        with suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def die_with_parent() -> None:
    """Be killed when the thread that forked this process ends. Call it first thing after the fork (Linux only)."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# --- rlimits --------------------------------------------------------------------------------------------------------


def _set_rlimits(limits: Limits) -> bool:
    memory = _address_space_bytes() + limits.memory_bytes
    wanted = [
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        # Without effect for root, where it could not become nobody; seccomp stops it from forking.
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 16),
    ]
    if sys.platform == "linux":
        wanted.append((resource.RLIMIT_AS, memory))
    try:
        for kind, value in wanted:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
    except (OSError, ValueError):
        return False
    return True


@cache
def _address_space_bytes() -> int:
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


# --- users, namespaces and privileges -------------------------------------------------------------------------------

_NOBODY = 65534
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_GET_DUMPABLE, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 3, 4, 38
_CAPABILITY_VERSION_3 = 0x20080522


@cache
def _python_libc() -> ctypes.PyDLL:
    """The same, called without giving up the interpreter's lock, which a child would wait for."""
    return ctypes.PyDLL(None, use_errno=True)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, *arguments: int) -> bool:
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return bool(_libc().prctl(option, *padded) == 0)


def _drop_privileges() -> bool:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    none = struct.pack("=6I", *[0] * 6)
    without_capabilities = _libc().capset(header, none) == 0
    return without_capabilities and _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _prctl(_PR_SET_DUMPABLE, 0)


@cache
def _is_unreachable() -> bool:
    """Whether this machine cannot be reached from here; connecting a datagram socket sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", 9))
    except OSError as error:
        return error.errno == errno.ENETUNREACH
    return False


# --- Landlock -------------------------------------------------------------------------------------------------------

# Numbers of the system calls are the same on every architecture.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_VERSION_FLAG = 1


def _landlock_ruleset(abi: int) -> bytes:
    """`struct landlock_ruleset_attr` handling all that an ABI version knows: file access, TCP, scoped signals."""
    file_rights = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    if abi < 4:
        return struct.pack("=Q", (1 << file_rights) - 1)
    if abi < 6:
        return struct.pack("=QQ", (1 << file_rights) - 1, 0b11)
    return struct.pack("=QQQ", (1 << file_rights) - 1, 0b11, 0b11)


def _restrict_paths() -> int:
    """The version of the ABI by which everything is denied now, 0 if nothing is."""
    libc = _libc()
    abi = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)
    if abi < 1:
        return 0
    attribute = _landlock_ruleset(abi)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, attribute, ctypes.c_size_t(len(attribute)), 0)
    if ruleset < 0:
        return 0
    restricted = libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    denied = restricted and _is_denied(lambda: os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY)))
    return int(abi) if denied else 0


# --- seccomp, and whether a layer denies what it should -------------------------------------------------------------


def _filter_calls() -> bool:
    return filter_calls() and _is_denied(lambda: socket.socket().close())


def _is_denied(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except PermissionError:
        return True
    except OSError:
        return False
    return False
