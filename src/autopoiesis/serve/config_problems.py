"""What does not fit together in a configuration, each section of which is right by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

from autopoiesis.serve.config import Config, identity
from autopoiesis.serve.config_values import is_loopback

Place = tuple[str | int, ...]
"""Where in a configuration: names of fields and positions in lists."""

Problem = tuple[Place, str]
"""A place, and what to do about it."""

EVERYWHERE = ("0.0.0.0", "::")


def problems(config: Config) -> list[Problem]:
    """All that does not fit together, or is not there."""
    return [*_of_models(config), *_of_replicas(config), *_of_keys(config), *_of_admin(config), *_of_files(config)]


def _of_models(config: Config) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for i, model in enumerate(config.models):
        for name in (model.name, *model.aliases):
            if name in owners:
                place = ("models", i, "name" if name == model.name else "aliases")
                yield place, f"{name!r} is a name or alias of {owners[name]!r} already; give it to one of them only"
            owners.setdefault(name, model.name)


def _of_replicas(config: Config) -> Iterator[Problem]:
    names = {model.name for model in config.models}
    ids: set[str] = set()
    for i, replica in enumerate(config.replicas):
        if replica.model is None and len(names) > 1:
            yield ("replicas", i), "there are several models; say which one it serves: `model: NAME`"
        elif replica.model is not None and replica.model not in names:
            yield ("replicas", i, "model"), f"no model is named {replica.model!r}; add it to `models`"
        if (known := identity(replica)) in ids:
            yield ("replicas", i), f"another replica is {known!r}; give this one an `id` of its own"
        ids.add(known)


def _of_keys(config: Config) -> Iterator[Problem]:
    models = {model.name for model in config.models}
    names: set[str] = set()
    hashes: set[str] = set()
    for i, key in enumerate(config.keys):
        if key.name in names:
            yield ("keys", i, "name"), f"another key is named {key.name!r}; give this one a name of its own"
        if key.sha256 in hashes:
            yield ("keys", i, "sha256"), "another key has the same hash; make one with `autopoiesis config key NAME`"
        for name in key.models or ():
            if name not in models:
                yield ("keys", i, "models"), f"no model is named {name!r}; add it to `models`"
        names.add(key.name)
        hashes.add(key.sha256)


def _of_admin(config: Config) -> Iterator[Problem]:
    listen, admin = config.listen, config.admin
    if admin is None:
        return
    if admin.token_sha256 is None and not is_loopback(admin.host):
        mend = "`autopoiesis config key admin` makes one, or let `host` be 127.0.0.1"
        yield ("admin", "token_sha256"), f"is missing, and `host` is no loopback address; {mend}"
    shared = admin.host == listen.host or admin.host in EVERYWHERE or listen.host in EVERYWHERE
    if shared and admin.port == listen.port != 0:
        yield ("admin", "port"), "is the port of `listen`; give another one"


def _of_files(config: Config) -> Iterator[Problem]:
    files: list[tuple[Place, str | None]] = [(("policy", "file"), config.policy.file)]
    if (tls := config.listen.tls) is not None:
        files += [(("listen", "tls", "certificate"), tls.certificate), (("listen", "tls", "key"), tls.key)]
    for place, file in files:
        if file is not None and not os.path.isfile(file):
            yield place, f"there is no file {file!r}; relative paths start from the folder of the configuration"
        elif file is not None and not os.access(file, os.R_OK):
            yield place, f"{file!r} cannot be read; change its owner or mode"
