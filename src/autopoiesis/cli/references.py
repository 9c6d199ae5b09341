"""What a policy is called on the command line, and the source it stands for."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from autopoiesis.errors import PolicyError, StoreError, unknown_name

if TYPE_CHECKING:
    from autopoiesis.evolve.store import PolicyRecord
    from autopoiesis.policy.refusal import Refusal
    from autopoiesis.policy.source import PolicySource

PREFIX = 6
"""Fewest digits of an identity that name a policy."""

FORMS = "NAME of the library, FILE.py, or the identity of an evolved policy (its first 6 digits or more)"


def resolve(reference: str, store: str) -> PolicySource:
    """The policy of that name, at that path, or of that identity in the store, if there is one.

    Raises PolicyError, and StoreError for a file that is no store. The source need not pass the checks.
    """
    from autopoiesis.policy.library import library
    from autopoiesis.policy.source import PolicySource, read_policy

    human = library()
    if reference in human:
        return human[reference]
    if _is_path(reference):
        return read_policy(Path(reference))
    evolved = {record.id: record for record in stored(store)}
    found_id = _identity(reference, evolved)
    if found_id is not None:
        record = evolved[found_id]
        return PolicySource(record.name, record.source)
    near = difflib.get_close_matches(reference, (*human, *evolved), n=1, cutoff=0.5)
    found = unknown_name("policy", reference, (*human, *evolved) if near else human)
    raise PolicyError(found if near else f"{found}; or give FILE.py, or an identity in the store {store}")


def checked(reference: str, store: str) -> tuple[PolicySource, tuple[Refusal, ...]]:
    """The policy, and what is refused in it. Only a text of the library is checked in this process.

    Raises what `resolve` does, and PolicyError where an evolved policy would have to be checked without the wall.
    """
    from autopoiesis.policy.admission import check_alone
    from autopoiesis.policy.check import check_policy
    from autopoiesis.policy.library import library

    source = resolve(reference, store)
    if reference in library():
        return source, tuple(check_policy(source.text))
    return source, check_alone(source.text, reference, own=_is_path(reference))


def _is_path(reference: str) -> bool:
    return reference.endswith(".py") or "/" in reference


def recorded(reference: str, records: tuple[PolicyRecord, ...], store: str) -> PolicyRecord:
    """The policy of the store with that name of the library or that identity. Raises PolicyError."""
    by_id = {record.id: record for record in records}
    human = {record.name: record for record in records if record.provider == "human"}
    found = human.get(reference) or by_id.get(_identity(reference, by_id) or "")
    if found is None:
        near = difflib.get_close_matches(reference, (*human, *by_id), n=1, cutoff=0.5)
        hint = unknown_name("policy", reference, (*human, *by_id)) if near else f"unknown policy {reference!r}"
        raise PolicyError(hint if near else f"{hint}; autopoiesis policy list --store {store} names them")
    return found


def _identity(reference: str, identities: Collection[str]) -> str | None:
    """The one that begins so, if any does; PolicyError if several do."""
    matches = [id for id in identities if id.startswith(reference)] if len(reference) >= PREFIX else []
    if len(matches) > 1:
        raise PolicyError(f"policy {reference!r} stands for {' and '.join(sorted(matches))}; give more digits")
    return matches[0] if matches else None


def existing(path: str) -> str:
    """The path of a store that is there: looking into one creates no file. Raises StoreError."""
    if not Path(path).is_file():
        raise StoreError(f"store {path}: there is no such file; check the path, or name another one with --store")
    return path


def stored(store: str) -> tuple[PolicyRecord, ...]:
    """The policies in the store, none if there is no store: looking for policies creates no file."""
    path = Path(store)
    if not path.is_file() or path.stat().st_size == 0:
        return ()
    from autopoiesis.evolve.store import Store

    with Store(store) as opened:
        return opened.policies()
