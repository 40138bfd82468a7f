"""How models are called: from where a file lies to its id, and from what a user types to an id.

Ids follow docs/protocol.md's rules and stay while the file stays: `assign` is given the names of
the last listing and keeps them. `resolve` never guesses at typos; it only suggests.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hybridd.wire.errors import ModelAmbiguous, ModelNotFound

from .grouping import bare, family
from .model import ModelRecord, printable

__all__ = [
    "SHARD",
    "Name",
    "Unnamed",
    "assign",
    "bare",
    "family",
    "natural_name",
    "resolve",
    "segments",
    "suggestions",
    "without_tag",
]

SHARD = re.compile(
    r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.[A-Za-z0-9]+)$", re.DOTALL
)

MAX_SUGGESTIONS = 5
MAX_CANDIDATES = 20
# difflib compares every name with the query; more than this many would hold the loop too long.
_MAX_COMPARED = 2000
_MAX_GUESSED = 512
# Three names of 255 bytes, each written as %XX.
_MAX_QUERY = 4096
# As git shows commits.
_COMMIT_DIGITS = 7

# A folder named only by a quantization (`Q4_K_M`, `UD-Q4_K_XL`, `BF16`) is no repository.
_TAG_FOLDER = re.compile(r"^(UD-)?(I?Q\d\w*|TQ\d_0|B?F16|F32|MXFP4\w*)$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[/\-_.:+@\s]+")
_SPELLINGS = {"F16": ("F16", "FP16"), "F32": ("F32", "FP32")}


@dataclass(frozen=True, slots=True)
class Unnamed:
    """A listed model before it has a name: what that depends on.

    Attributes:
        key: What stays while the file stays: its path.
        store: Which store it lies in; earlier stores come first in a listing.
        folders: The names of the folders between the store's root and the file or directory.
        stem: The file's name without suffix and shard number, or the directory's name.
        is_file: Whether the model is a file (named by its repository and a tag) or a directory.
        tag: The quantization by the header, for formats whose ids carry one.
        tagged: Whether ids of this format carry a tag.
        fixed: The id that it has whatever it is called on disk (the packaged models, Ollama's).
        commit: Of which commit it is, where a store keeps several of a repository.
    """

    key: str
    store: str
    folders: tuple[str, ...]
    stem: str
    is_file: bool
    tag: str | None = None
    tagged: bool = False
    fixed: str | None = None
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Name:
    """A model's name: the id in force, and the one it would have without any collision."""

    id: str
    natural: str
    publisher: str | None
    name: str


def natural_name(model: Unnamed) -> Name:
    """The name by docs/protocol.md's rules alone, before collisions."""
    if model.fixed is not None:
        publisher, _, name = model.fixed.rpartition("/")
        publisher = publisher.rpartition("/")[2]  # without the host of a registry
        return Name(model.fixed, model.fixed, publisher or None, bare(name))
    folders, stem = [printable(f) for f in _layout(model)], printable(model.stem)
    if not model.is_file:
        publisher = folders[-2] if len(folders) > 1 else ""
        id = f"{publisher}/{folders[-1]}" if publisher else folders[-1]
        return Name(id, id, publisher or None, folders[-1])
    tag = model.tag
    if model.tagged and len(folders) > 1 and _TAG_FOLDER.match(folders[-1]):
        folders = folders[:-1]
    if model.tagged and len(folders) > 1:
        publisher, name = folders[-2:]
        id = f"{publisher}/{name}"
        return Name(f"{id}:{tag}" if tag else id, f"{id}:{tag}", publisher, name)
    name = without_tag(stem, tag) if model.tagged and tag else stem
    id = f"{name}:{tag}" if model.tagged and tag else name
    return Name(id, id, None, name)


def _layout(model: Unnamed) -> tuple[str, ...]:
    """Folder names with the hub cache's `models--publisher--name/snapshots/commit` undone."""
    folders = model.folders if model.is_file else (*model.folders, model.stem)
    for at, folder in enumerate(folders[:-2]):
        if folder.startswith("models--") and folders[at + 1] == "snapshots":
            inside = () if model.is_file else folders[at + 3 :]  # files belong to the repository
            return (*folders[:at], *folder.removeprefix("models--").split("--"), *inside)
    return folders


def without_tag(stem: str, tag: str) -> str:
    """A file's stem without the tag at its end (`-Q4_K_M`, `.q4_k_m`), never empty."""
    for spelling in _SPELLINGS.get(tag, (tag,)):
        pattern = re.escape(spelling).replace("_", "[-_.]")
        shorter = re.sub(rf"[-_.]+{pattern}$", "", stem, flags=re.IGNORECASE)
        if shorter and shorter != stem:
            return shorter
    return stem


def assign(models: Iterable[Unnamed], previous: Mapping[str, Name]) -> dict[str, Name]:
    """Give every listed model its id.

    Args:
        models: In the order in which names are given: stores first to last, then by path.
        previous: The names of the last listing, by key; they are kept while they are true.

    Returns:
        A name for every key; all ids differ.
    """
    names: dict[str, Name] = {}
    taken: dict[str, str] = {}  # id -> store
    fresh: list[tuple[Unnamed, Name]] = []
    count: dict[tuple[str, str, str | None], int] = {}  # how many would have the same id
    for model in models:
        name, last = natural_name(model), previous.get(model.key)
        # An unreadable file has no tag to go by; what it was called before still stands.
        unread = model.tagged and model.tag is None
        if last is not None and last.id not in taken and (unread or last.natural == name.natural):
            name = names[model.key] = last
            taken[last.id] = model.store
        else:
            fresh.append((model, name))
        same = model.store, name.natural, model.commit
        count[same] = count.get(same, 0) + 1
    for model, name in fresh:
        crowded = count[model.store, name.natural, model.commit] > 1 or (
            taken.get(name.id) == model.store and model.commit is None
        )
        id = _free(model, name, crowded, taken)
        taken[id] = model.store
        names[model.key] = Name(id, name.natural, name.publisher, name.name)
    return names


def _free(model: Unnamed, name: Name, crowded: bool, taken: Mapping[str, str]) -> str:
    """An id that no other model has: with `+stem`, then `@store`, `@commit`, then a number."""
    wanted = name.id
    stem = printable(model.stem)
    if crowded and model.is_file and stem not in (wanted, name.name) and model.fixed is None:
        wanted = f"{wanted}+{stem}" if ":" in wanted else f"{wanted}:+{stem}"
    if wanted in taken and taken[wanted] != model.store:
        wanted = f"{wanted}@{model.store}"
    if wanted in taken and model.commit is not None:
        wanted = f"{wanted}@{printable(model.commit)[:_COMMIT_DIGITS]}"
    id, number = wanted, 2
    while id in taken:
        id, number = f"{wanted}~{number}", number + 1
    return id


# ---------------------------------------------------------------- from a query to an id


def segments(text: str) -> tuple[str, ...]:
    """The pieces that a partial match compares as a whole."""
    return tuple(part for part in _SEPARATORS.split(_folded(text)) if part)


def _folded(text: str) -> str:
    """Text as far as a person tells it apart: without case, composed (é as one character)."""
    if text.isascii():
        return text.casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def resolve(
    query: str,
    models: Mapping[str, ModelRecord],
    loaded_ids: Collection[str] = (),
    fits: Callable[[str], bool] | None = None,
) -> str:
    """The id that a user means.

    Exact id; alias; id without its tag; a case-insensitive match of whole segments that names
    one model. Of several builds a loaded one comes first, else the best that fits now.

    Args:
        query: What the user typed.
        models: The catalog, sorted by id.
        loaded_ids: Models that are in memory.
        fits: Whether a model would fit now; None leaves it open.

    Raises:
        ModelNotFound: data: model, suggestions.
        ModelAmbiguous: data: candidates.
    """
    if query in models:
        return query
    query = query.strip()[:_MAX_QUERY]
    usable = {key: model for key, model in models.items() if model.available}
    for accepts in _steps(query, usable):
        matched = [key for key in usable if accepts(key)]
        families = {family(key) for key in matched}
        if len(families) == 1:
            return _best(matched, usable, loaded_ids, fits)
        if matched:
            raise _ambiguous(query, matched)
    unusable = [key for key, model in models.items() if query in (bare(key), *model.aliases)]
    if unusable:
        return unusable[0]  # the caller says why it is no usable model
    raise _not_found(query, models)


def _steps(query: str, models: Mapping[str, ModelRecord]) -> Sequence[Callable[[str], bool]]:
    """The ways to match, the strictest first; each maps an id to whether it is meant."""
    folded, wanted = _folded(query), segments(query)
    pieces = {key: segments(key) for key in models}
    return (
        lambda key: query == key or query in models[key].aliases,
        lambda key: query == bare(key),
        lambda key: folded == _folded(key) or folded in map(_folded, models[key].aliases),
        lambda key: folded == _folded(bare(key)),
        lambda key: bool(wanted) and _adjacent(wanted, pieces[key]),
        lambda key: bool(wanted) and _in_order(wanted, pieces[key]),
    )


def _adjacent(wanted: Sequence[str], pieces: Sequence[str]) -> bool:
    width = len(wanted)
    return any(pieces[at : at + width] == wanted for at in range(len(pieces) - width + 1))


def _in_order(wanted: Sequence[str], pieces: Sequence[str]) -> bool:
    rest = iter(pieces)
    return all(any(piece == part for piece in rest) for part in wanted)


def _best(
    matched: Sequence[str],
    models: Mapping[str, ModelRecord],
    loaded_ids: Collection[str],
    fits: Callable[[str], bool] | None,
) -> str:
    """Of builds of one model: a loaded one, else the largest that fits, else the smallest."""
    if len(matched) == 1:
        return matched[0]
    loaded = [key for key in matched if key in loaded_ids]
    by_size = sorted(loaded or matched, key=lambda key: (-models[key].facts.weights_bytes, key))
    if loaded or fits is None:
        return by_size[0]
    return next((key for key in by_size if fits(key)), by_size[-1])


def _ambiguous(query: str, matched: Sequence[str]) -> ModelAmbiguous:
    shown = sorted(matched)[:MAX_CANDIDATES]
    more = f" and {len(matched) - 3} more" if len(matched) > 3 else ""
    return ModelAmbiguous(
        f"{query!r} may be {', '.join(shown[:3])}{more}: say which", candidates=shown
    )


def _not_found(query: str, models: Mapping[str, ModelRecord]) -> ModelNotFound:
    near = suggestions(query, models)
    hint = f"; did you mean {near[0]}?" if near else "; list the models to see what there is"
    return ModelNotFound(f"there is no model {query!r}{hint}", model=query, suggestions=near)


def suggestions(query: str, models: Mapping[str, ModelRecord]) -> list[str]:
    """Ids of usable models that look like `query`, the likeliest first."""
    spelled: dict[str, str] = {}
    for key, model in models.items():
        if model.available and len(spelled) < _MAX_COMPARED:
            for spelling in (key, bare(key), family(key), *model.aliases):
                spelled.setdefault(spelling.casefold(), key)
    near = difflib.get_close_matches(
        query[:_MAX_GUESSED].casefold(), spelled, n=MAX_SUGGESTIONS * 2, cutoff=0.5
    )
    return list(dict.fromkeys(spelled[spelling] for spelling in near))[:MAX_SUGGESTIONS]
