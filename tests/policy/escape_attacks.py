"""What code that has got out of Python would try: each attack gives True, or leaves a trace outside, if it works.

The text of this module is run by a policy that broke out, so it can import only what its process has loaded. `scene`
says what there is to attack (see `escape_driver`). An attack that needs what not every kernel gives has a `NEEDS`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import struct
import sys
import time
from typing import Any, TypedDict


class Scene(TypedDict):
    """What there is to attack."""

    tcp: int
    """Port, as is `udp`."""
    udp: int
    unix: str
    """Address of a listener, as is `abstract`."""
    abstract: str
    secret: str
    """Path of a file that holds the word, as are `spare` and `doomed`."""
    spare: str
    doomed: str
    new: str
    """Path where no file is."""
    word: str
    host: int
    """Process that holds the word: in its environment, at an address, and in an open file that has no name."""
    address: int
    held: int
    victim: int
    """Process that only sleeps."""


NEEDS = {
    "io_uring": "io_uring that the kernel lets everybody use",
    "trace": "a kernel that lets processes of one user trace each other",
    "memory_by_file": "a kernel that lets processes of one user trace each other",
    "memory_by_call": "a kernel that lets processes of one user trace each other",
    "file_through_proc_fd": "a kernel that lets processes of one user trace each other",
    "file_through_proc_root": "a kernel that lets processes of one user trace each other",
    "environment_of_host": "a kernel that lets processes of one user trace each other",
    "set_clock": "the right to set the clock, which only root has",
    "raise_priority": "the right to raise a priority, which only root has",
    "real_time": "the right to real-time scheduling, which only root has",
    "write_proc_sys": "the right to write there, which only root has",
    "call_of_another_architecture": "a kernel with the system calls of 32-bit x86",
}
"""What must be there for an attack to work without the wall; all others must work everywhere."""

NUMBERS = {
    # name: (x86-64, aarch64)
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "io_uring_setup": (425, 425),
}


def call(name: str, *arguments: Any) -> int:
    number = NUMBERS[name][0 if os.uname().machine == "x86_64" else 1]
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# --- the network ----------------------------------------------------------------------------------------------------


def tcp(scene: Scene) -> None:
    socket.socket().connect(("127.0.0.1", scene["tcp"]))


def udp(scene: Scene) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", scene["udp"]))


def unix_socket(scene: Scene) -> None:
    socket.socket(socket.AF_UNIX).connect(scene["unix"])


def abstract_socket(scene: Scene) -> None:
    socket.socket(socket.AF_UNIX).connect(scene["abstract"].encode())


def listen(scene: Scene) -> bool:
    socket.create_server(("127.0.0.1", 0)).close()
    return True


def socket_pair(scene: Scene) -> bool:
    return bool(socket.socketpair())


# --- files ----------------------------------------------------------------------------------------------------------


def read_file(scene: Scene) -> bool:
    return os.read(os.open(scene["secret"], os.O_RDONLY), 99) == scene["word"].encode()


def write_file(scene: Scene) -> None:
    os.write(os.open(scene["new"], os.O_WRONLY | os.O_CREAT), b"x")


def append_to_file(scene: Scene) -> None:
    os.write(os.open(scene["secret"], os.O_WRONLY | os.O_APPEND), b"x")


def truncate_file(scene: Scene) -> None:
    os.truncate(scene["spare"], 0)


def remove_file(scene: Scene) -> None:
    os.unlink(scene["doomed"])


def link_file(scene: Scene) -> None:
    os.symlink(scene["secret"], scene["new"])


def list_folder(scene: Scene) -> bool:
    return bool(os.listdir("/"))


def file_in_memory(scene: Scene) -> bool:
    return os.memfd_create("x") >= 0


# --- programs and processes -----------------------------------------------------------------------------------------


def execute(scene: Scene) -> None:
    # A host that loses its connection kills who was at the other end, maybe before the program has done its work.
    with contextlib.suppress(OSError):
        os.set_inheritable(3, True)
    os.execv("/bin/sh", ["sh", "-c", f"echo x > {scene['new']}"])


def shell(scene: Scene) -> bool:
    return os.system("true") == 0


def fork_bomb(scene: Scene) -> bool:
    for _ in range(3):
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return True


def thread_bomb(scene: Scene) -> bool:
    # `_thread` and no Thread object, which would wait for a start that is denied
    start = sys.modules["_thread"].start_new_thread
    return all(start(time.sleep, (0.01,)) for _ in range(3))


def memory_bomb(scene: Scene) -> bool:
    # reserved and never touched: it costs this machine nothing
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    anonymous_private_noreserve = 0x4022
    at = libc.mmap(None, ctypes.c_size_t(2**34), 3, anonymous_private_noreserve, -1, ctypes.c_long(0))
    if at == ctypes.c_void_p(-1).value:
        raise MemoryError(os.strerror(ctypes.get_errno()))
    return True


def trace(scene: Scene) -> bool:
    seize = 0x4206
    return call("ptrace", seize, scene["victim"], None, None) == 0


def signal_others(scene: Scene) -> bool:
    os.kill(scene["victim"], signal.SIGCONT)
    return True


def signal_host(scene: Scene) -> bool:
    os.kill(scene["host"], 0)
    return True


def memory_by_file(scene: Scene) -> bool:
    word = scene["word"].encode()
    return os.pread(os.open(f"/proc/{scene['host']}/mem", os.O_RDONLY), len(word), scene["address"]) == word


def memory_by_call(scene: Scene) -> bool:
    word = scene["word"].encode()
    read = ctypes.create_string_buffer(len(word))
    ours = struct.pack("=QQ", ctypes.addressof(read), len(word))
    theirs = struct.pack("=QQ", scene["address"], len(word))
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    call("process_vm_readv", scene["host"], ours, one, theirs, one, none)
    return read.raw == word


def io_uring(scene: Scene) -> bool:
    return call("io_uring_setup", 4, ctypes.create_string_buffer(120)) >= 0


def call_of_another_architecture(scene: Scene) -> bool:
    # mov eax, 20; int 0x80; ret: number 20 is getpid there, and writev to a filter that takes it for ours
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    anonymous_private, executable = 0x22, 7
    at = libc.mmap(None, ctypes.c_size_t(4096), executable, anonymous_private, -1, ctypes.c_long(0))
    ctypes.memmove(at, code, len(code))
    return bool(ctypes.CFUNCTYPE(ctypes.c_int)(at)() == os.getpid())


# --- /proc ----------------------------------------------------------------------------------------------------------


def own_program(scene: Scene) -> bool:
    return os.read(os.open("/proc/self/exe", os.O_RDONLY), 4) == b"\x7fELF"


def file_through_proc_fd(scene: Scene) -> bool:
    return os.read(os.open(f"/proc/{scene['host']}/fd/{scene['held']}", os.O_RDONLY), 99) == scene["word"].encode()


def file_through_proc_root(scene: Scene) -> bool:
    return os.read(os.open(f"/proc/{scene['host']}/root{scene['secret']}", os.O_RDONLY), 99) == scene["word"].encode()


def read_proc_sys(scene: Scene) -> bool:
    return bool(os.read(os.open("/proc/sys/kernel/ostype", os.O_RDONLY), 99))


def write_proc_sys(scene: Scene) -> bool:
    # what stands there already
    setting = "/proc/sys/kernel/core_uses_pid"
    value = os.read(os.open(setting, os.O_RDONLY), 99)
    return os.write(os.open(setting, os.O_WRONLY), value) > 0


def environment_of_host(scene: Scene) -> bool:
    return scene["word"].encode() in os.read(os.open(f"/proc/{scene['host']}/environ", os.O_RDONLY), 2**17)


# --- clocks, priorities, limits -------------------------------------------------------------------------------------


def set_clock(scene: Scene) -> bool:
    # to what it shows
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))
    return True


def lower_priority(scene: Scene) -> bool:
    os.setpriority(os.PRIO_PROCESS, scene["victim"], 1)
    return True


def raise_priority(scene: Scene) -> bool:
    os.setpriority(os.PRIO_PROCESS, 0, -1)
    return True


def schedule_others(scene: Scene) -> bool:
    os.sched_setscheduler(scene["victim"], os.SCHED_BATCH, os.sched_param(0))
    return True


def real_time(scene: Scene) -> bool:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return True


def change_limit(scene: Scene) -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    return True


def outlive_parent(scene: Scene) -> bool:
    set_death_signal = 1
    return bool(ctypes.CDLL(None).prctl(set_death_signal, 0) == 0)


def unforeseen_numbers(scene: Scene) -> bool:
    return bool(os.urandom(8))


# --- what a process is born with ------------------------------------------------------------------------------------


def own_environment(scene: Scene) -> bool:
    return scene["word"] in os.environ.values()


def inherited_descriptor(scene: Scene) -> bool:
    word = scene["word"].encode()
    for number in range(64):
        try:
            if os.pread(number, 99, 0) == word:
                return True
        except OSError:
            continue
    return False
