"""What must hold between several values of a file.

The checks read the plain tree, not the settings, so that they tell their part also of a file that
has other mistakes; a value of a wrong type is passed over here, the models tell of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase

from router.config.document import Plain
from router.config.problems import Location
from router.config.wording import nearest
from router.openai.paths import BY_UPSTREAM, INFERENCE_PATHS

# What the router itself answers, beside the inference paths; everything below each belongs to it.
_OWN_PATHS = (
    "/v1",
    "/api",
    "/dashboard",
    "/docs",
    "/explain",
    "/health",
    "/metrics",
    "/models",
    "/openapi.json",
    "/redoc",
    "/services",
    "/stats",
    "/ws",
)

Complaint = tuple[Location, str]


def cross_check(tree: dict[str, Plain]) -> Iterator[Complaint]:
    """Find what does not fit together, as location and message."""
    yield from _duplicates(tree, ("services", "*", "name"), "name")
    yield from _duplicates(tree, ("organizations", "*", "id"), "id")
    yield from _duplicates(tree, ("organizations", "*", "keys", "*", "id"), "id")
    yield from _duplicate_hashes(tree)
    yield from _duplicates(tree, ("routes", "*", "path"), "path")
    yield from _reserved_routes(tree)
    yield from _upstream_paths(tree)
    yield from _aliases(tree)
    yield from _route_models(tree)
    yield from _scopes(tree)
    yield from _no_services(tree)


def _texts(
    tree: Plain, path: tuple[str, ...], location: Location = ()
) -> Iterator[tuple[Location, str]]:
    """Every text at `path`, where `*` stands for each item of a list or mapping."""
    if not path:
        if isinstance(tree, str):
            yield location, tree
        return
    if path[0] != "*":
        if isinstance(tree, dict):
            yield from _texts(tree.get(path[0]), path[1:], (*location, path[0]))
        return
    items: list[tuple[str | int, Plain]] = []
    if isinstance(tree, list):
        items.extend(enumerate(tree))
    elif isinstance(tree, dict):
        items.extend(tree.items())
    for part, item in items:
        yield from _texts(item, path[1:], (*location, part))


def _duplicates(tree: Plain, path: tuple[str, ...], what: str) -> Iterator[Complaint]:
    seen: set[str] = set()
    for location, text in _texts(tree, path):
        if text in seen:
            yield location, f"a second {text!r}; give each its own {what}"
        seen.add(text)


def _duplicate_hashes(tree: Plain) -> Iterator[Complaint]:
    seen: set[str] = set()
    for location, text in _texts(tree, ("organizations", "*", "keys", "*", "sha256")):
        if text.lower() in seen:
            yield location, "the hash of a key that stands above already; remove one of them"
        seen.add(text.lower())


def _reserved_routes(tree: Plain) -> Iterator[Complaint]:
    for location, path in _texts(tree, ("routes", "*", "path")):
        reserved = _reserved(path)
        if reserved is not None:
            yield location, f"{reserved} is a path of the router's own; write another"


def _reserved(path: str) -> str | None:
    if path in INFERENCE_PATHS:
        return path
    return next((own for own in _OWN_PATHS if path == own or path.startswith(own + "/")), None)


def _upstream_paths(tree: Plain) -> Iterator[Complaint]:
    for location, path in _texts(tree, ("routes", "*", "upstream_path")):
        if path not in BY_UPSTREAM:
            meant = nearest(path, BY_UPSTREAM) or "/v1/chat/completions"
            yield location, f"no inference path of an engine; write one such as {meant}"


def _aliases(tree: Plain) -> Iterator[Complaint]:
    models = {text for _, text in _texts(tree, ("services", "*", "models", "*"))}
    aliases = {str(at[-1]): target for at, target in _texts(tree, ("aliases", "*"))}
    for alias, target in aliases.items():
        location: Location = ("aliases", alias)
        if alias in models:
            yield location, "a model of a service has this name; write another alias"
        elif target == alias:
            yield location, "an alias of itself; write the name of a model"
        elif target in aliases and target not in models:
            yield location, f"an alias of an alias; write its model: {aliases[target]}"
        elif _names_all_models(tree) and target not in models:
            yield location, _unknown_model(target, models)


def _route_models(tree: Plain) -> Iterator[Complaint]:
    if not _names_all_models(tree):
        return
    models = {text for _, text in _texts(tree, ("services", "*", "models", "*"))}
    names = models | {str(at[-1]) for at, _ in _texts(tree, ("aliases", "*"))}
    for location, model in _texts(tree, ("routes", "*", "model")):
        if model not in names:
            yield location, _unknown_model(model, models)


def _scopes(tree: Plain) -> Iterator[Complaint]:
    """Find the keys that can use nothing, because their scopes hold aliases or short names."""
    if not _names_all_models(tree):
        return
    models = {text for _, text in _texts(tree, ("services", "*", "models", "*"))}
    aliases = {str(at[-1]): target for at, target in _texts(tree, ("aliases", "*"))}
    scopes: dict[Location, list[tuple[Location, str]]] = {}
    for location, pattern in _texts(tree, ("organizations", "*", "keys", "*", "models", "*")):
        scopes.setdefault(location[:-1], []).append((location, pattern))
    for patterns in scopes.values():
        if any(_fits(pattern, model) for _, pattern in patterns for model in models):
            continue
        for location, pattern in patterns:
            full = full_name(pattern, models, aliases)
            if full is not None:
                yield location, f"a key's models are full names; write {full}"


def _fits(pattern: str, model: str) -> bool:
    """Whether a key's pattern fits a model; `*` is the only sign with a meaning."""
    return fnmatchcase(model, pattern.replace("[", "[[]").replace("?", "[?]"))


def full_name(pattern: str, models: Collection[str], aliases: Mapping[str, str]) -> str | None:
    """What a key's scope should hold where it holds an alias or a short name; None: it does not.

    A scope is held against full names alone, so such a pattern would let nothing in.
    """
    if pattern in models:
        return None
    short = (model for model in sorted(models) if model.rpartition("/")[2] == pattern)
    return aliases.get(pattern) or next(short, None)


def _unknown_model(name: str, models: set[str]) -> str:
    full = [model for model in sorted(models) if model.rpartition("/")[2] == name]
    meant = full[0] if full else nearest(name, sorted(models))
    if meant is not None:
        return f"no service has the model {name!r}; did you mean {meant}?"
    return f"no service has the model {name!r}; the models are: {', '.join(sorted(models))}"


def _names_all_models(tree: Plain) -> bool:
    """Whether the file alone says which models there are."""
    services = tree.get("services") if isinstance(tree, dict) else None
    if not isinstance(services, list) or not services or _discovers(tree):
        return False
    return all(isinstance(s, dict) and isinstance(s.get("models"), list) for s in services)


def _discovers(tree: Plain) -> bool:
    discovery = tree.get("discovery") if isinstance(tree, dict) else None
    if discovery is None:
        return False
    if not isinstance(discovery, dict):
        return True
    docker = discovery.get("docker")
    enabled = (
        isinstance(docker, dict) and docker.get("enabled") is not False and "enabled" in docker
    )
    return enabled or discovery.get("files") is not None


def _no_services(tree: dict[str, Plain]) -> Iterator[Complaint]:
    services: Plain = tree.get("services", [])
    if services == [] and not _discovers(tree):
        message = (
            "there are none and discovery is off; write at least one with name and url, "
            "or discovery.docker.enabled: true, or discovery.files"
        )
        yield ("services",), message
