"""Takes from a process what a reader of uploaded files does not need: memory, time, files, network, other processes.

The limits always hold. The rest is best effort, since a container may not allow it: a network namespace without a network,
another user, a system call filter and Landlock on Linux. What has been imported and opened before stays usable.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from dataclasses import dataclass

_NOBODY = 65534
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_ALL_ACCESS = (1 << 13) - 1
"""Every kind of access to files that the first version of Landlock knows."""
_OPEN_FILES = 64
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD, _CLONE3 = 0x10000, 435
_SYSCALLS = {
    # socket, connect, socketpair, execve, kill, ptrace, process_vm_readv and _writev, execveat, io_uring_setup, pidfd_getfd,
    # and x86's fork and vfork; clone
    "x86_64": (0xC000003E, (41, 42, 53, 59, 62, 101, 310, 311, 322, 425, 438, 57, 58), 56),
    "aarch64": (0xC00000B7, (198, 203, 199, 221, 129, 117, 270, 271, 281, 425, 438), 220),
}
"""By machine: its number in the kernel's audit, the system calls that a reader is refused, and the one that starts threads."""


@dataclass(frozen=True)
class Limits:
    """What one reading may use. Above them the process is ended, or its allocation or write fails."""

    memory_bytes: int = 1 << 30
    """Address space, which includes the interpreter and the libraries."""
    cpu_s: int = 20
    wall_s: float = 120.0
    """Generous: a busy machine must not refuse a good file, and the processor time is reached first."""
    output_bytes: int = 0
    has_threads: bool = False
    """Whether the reader's library needs threads of its own. Processes are refused in any case."""


def confine(limits: Limits) -> None:
    """Confine this process for good. It must have a single thread."""
    for what, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.output_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(what, (value, value))
    grant_cpu(limits.cpu_s)
    is_filtered = sys.platform == "linux" and _confine_on_linux()
    if not (limits.has_threads and is_filtered):
        # After the change of user, whose processes this limit counts. Linux counts threads as processes.
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def grant_cpu(seconds: int) -> None:
    """Allow so much more processor time, whatever was used before."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _confine_on_linux() -> bool:
    """Return whether the system calls are filtered."""
    libc = ctypes.CDLL(None, use_errno=True)
    has_no_network = libc.unshare(_CLONE_NEWNET) == 0
    if os.geteuid() == 0:
        # A user namespace may not have this user.
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    if not has_no_network:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # A change of user clears this one.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _close_file_system(libc)
    return _filter_system_calls(libc)


def _close_file_system(libc: ctypes.CDLL) -> None:
    attributes = ctypes.c_uint64(_LANDLOCK_ALL_ACCESS)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    if ruleset >= 0:
        # A ruleset without a rule allows nothing.
        libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def _filter_system_calls(libc: ctypes.CDLL) -> bool:
    found = _SYSCALLS.get(platform.machine())
    if found is None:
        return False
    machine, refused, clone = found
    load, jump_if_equal, jump_if_set, answer = 0x20, 0x15, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050000 | _EPERM, 0x00050000 | _ENOSYS
    # The kernel hands over the call's number at 0, the machine at 4 and the first argument at 16. A jump counts the instructions
    # that it passes over. Calls of another machine's numbering are refused.
    program = [(load, 0, 0, 4), (jump_if_equal, 1, 0, machine), (answer, 0, 0, refuse), (load, 0, 0, 0)]
    program += [(jump_if_equal, len(refused) - place + 4, 0, number) for place, number in enumerate(refused)]
    # The flags of clone3 lie in memory, where a filter does not see them. Without it, glibc starts threads by clone.
    program += [(jump_if_equal, 5, 0, _CLONE3), (jump_if_equal, 0, 2, clone)]
    program += [(load, 0, 0, 16), (jump_if_set, 0, 1, _CLONE_THREAD)]
    program += [(answer, 0, 0, allow), (answer, 0, 0, refuse), (answer, 0, 0, unknown)]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    descriptor = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    filter_ = ctypes.create_string_buffer(descriptor, len(descriptor))
    return libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0) == 0
