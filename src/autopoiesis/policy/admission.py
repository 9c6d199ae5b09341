"""How a text from outside becomes a policy.

A model's answer, a user's file, a store or a recording that somebody handed over: such a text is first looked at as
plain text (`unfit`), then parsed and checked in a locked process, and parsed by the process that runs everything only
if it passed there. The library's own texts, and what is put together from texts that passed, need none of this.
"""

from __future__ import annotations

from autopoiesis.errors import PolicyError
from autopoiesis.policy.check import check_policy
from autopoiesis.policy.host import PolicyHost
from autopoiesis.policy.host_template import HostTemplate
from autopoiesis.policy.limits import POSIX
from autopoiesis.policy.refusal import Refusal
from autopoiesis.policy.source import PolicySource, unfit


def refusals_of(host: PolicyHost, name: str) -> tuple[Refusal, ...]:
    """Everything that is refused in the host's text; empty if it is a policy. Nothing of it runs.

    The host's process, if the text got that far, goes on to serve the policy. Raises PolicyError under `name` where the
    check came to no end, or no process can be had.
    """
    if (refusal := unfit(host.source)) is not None:
        return (refusal,)
    answer = host.check()
    if answer.value is None:
        raise PolicyError(f"policy {name}: cannot be checked: {answer.failure}; write a shorter and simpler module")
    return answer.value


def admit(host: PolicyHost, name: str) -> PolicySource:
    """The policy of the host's text. Raises PolicyError with the first refusal (line, construct, why, what instead)."""
    refusals = refusals_of(host, name)
    if refusals:
        more = f" ({len(refusals) - 1} more refusals)" if refusals[1:] else ""
        raise PolicyError(f"policy {name}: {refusals[0]}{more}")
    return PolicySource(name, host.source)


def check_alone(text: str, name: str, *, own: bool) -> tuple[Refusal, ...]:
    """`refusals_of` a text that is not going to run, in a light process of its own: some tenths of a second.

    `own` says that it is a file of the user's. Such a text is checked where no process can be locked in, too: in an
    unlocked one, or in this one where there are none to be had. Raises PolicyError as `refusals_of` does.
    """
    if own and not POSIX:
        return tuple(check_policy(text))
    with HostTemplate(None, allow_unlocked=own) as template, PolicyHost(template, text) as host:
        return refusals_of(host, name)
