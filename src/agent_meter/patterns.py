"""What tools are called with, in bounded memory and without keeping anybody's secrets.

A value becomes a short text (`value_key`) before anything else is done with it. That runs no code of the
value's own (`__str__`, `__repr__`, `__hash__`, …), looks at a bounded part of it, and keeps no reference to it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import islice
from typing import Any
from zlib import crc32

import msgspec

from .sketches import TopValues

TEXT = 100  # characters kept of a value, a parameter name or a tool name
VALUES = 32  # values shown of a parameter
PARAMETERS = 32  # parameters followed of a tool
ALL_PARAMETERS = 1_024  # parameters followed of all tools together
_MOST = 64  # arguments of one call that are looked at
HIDDEN = "•••"
OTHER = "(other)"
WHOLE_INPUT = "(input)"  # the parameter name of arguments that are not a mapping

_MARGIN = 1_024  # characters at both ends of what is cut, by which long values are told apart
_CONTAINERS = (dict, list, tuple, set, frozenset)
_ITEMS, _DEPTH, _NODES, _ITEM_TEXT = 8, 3, 32, 40  # how much of a container is looked at

# ------------------------------------------------------------------------------------------------- secrets

_SECRETS = re.compile(
    r"secret|passw(or)?d|passphrase|pwd|credential|authorization|cookie|bearer|jwt|connectionstring"
    r"|(api|private|access|session|signing|encryption|ssh|auth)key"
    r"|(access|api|auth|refresh|session)tokens|token$|^(auth|pass|otp)$"
)
_COUNTED = frozenset(("max", "maximum", "min", "num", "number", "n", "count", "limit", "budget", "total", "per", "ids"))
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


def is_secret(name: str) -> bool:
    """Whether a parameter of this name holds a secret: `api_key`, `accessToken`, `X-Auth`; not `max_tokens`."""
    words = [word.lower() for word in _WORDS.findall(name[:TEXT])]
    if "token" in words:
        return _COUNTED.isdisjoint(words)
    return _SECRETS.search("".join(words)) is not None


# ------------------------------------------------------------------------------- values as short, typed texts

# A key is the text itself, or "\0", a letter and the rest: t a text, c a cut text after eight digits that tell
# it apart, v any other value, f one that was cut. So 1, 1.0, True and "1" are four keys, and all are texts.
MASKED = f"\0v{HIDDEN}"

# Shown by their own str(), which for these exact types is short and harmless.
_PLAIN = (
    ("datetime", "datetime"), ("datetime", "date"), ("datetime", "time"), ("datetime", "timedelta"),
    ("decimal", "Decimal"), ("uuid", "UUID"), ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"),
    ("pathlib", "PurePosixPath"), ("pathlib", "PureWindowsPath"),
)  # fmt: skip


def value_key(value: object, hidden: Callable[[str], bool] = is_secret) -> str:
    """The text that stands for a value: at most 111 characters, the same for equal values of the same type.

    `hidden` names the keys whose values inside a dict are shown as •••. Texts are one value when they agree in
    length, in their first 1,100 and in their last 1,000 characters; containers, when they agree in their first
    items; objects of other classes than the common ones, when they are of the same class.
    """
    kind = type(value)
    try:
        if kind is str:
            return _text_key(value)  # type: ignore[arg-type]
        if kind is int and -(1 << 60) < value < 1 << 60:  # type: ignore[operator]
            return f"\0v{value}"
        if issubclass(kind, str):
            return _text_key(_plain_text(value))
        if issubclass(kind, (bytes, bytearray)):
            return _bytes_key(value, bytes if issubclass(kind, bytes) else bytearray)
        shown = _show(value, _DEPTH, [_NODES], hidden)
    except Exception:  # a metaclass that lies, a container that another thread is changing
        return "\0v<unreadable>"
    if len(shown) <= TEXT:
        return f"\0v{shown}"
    return f"\0f{crc32(shown.encode('utf-8', 'surrogatepass')):08x}{shown[:TEXT]}…"


def _text_key(text: str) -> str:
    size = len(text)
    if size <= TEXT:
        return text if text[:1] != "\0" else f"\0t{text}"
    ends = text[TEXT : TEXT + _MARGIN] + text[-_MARGIN:]
    return f"\0c{crc32(ends.encode('utf-8', 'surrogatepass'), size & 0xFFFFFFFF):08x}{text[:TEXT]}"


def _bytes_key(value: Any, base: Any) -> str:
    size = base.__len__(value)
    ends = base.__getitem__(value, slice(_MARGIN)) + base.__getitem__(value, slice(-_MARGIN, None))
    return f"\0f{crc32(ends, size & 0xFFFFFFFF):08x}<{size:,} bytes>"


def _plain_text(value: Any) -> str:
    """A subclass of str, which may have methods of its own, as a plain str; of a long one, the two ends."""
    if str.__len__(value) <= 4 * _MARGIN:
        return str.__getitem__(value, slice(None))
    return str.__getitem__(value, slice(2 * _MARGIN)) + str.__getitem__(value, slice(-2 * _MARGIN, None))


def _show(value: Any, depth: int, left: list[int], hidden: Callable[[str], bool]) -> str:
    """What is not JSON's own comes in <>, so that it reads like no other value."""
    left[0] -= 1
    kind = type(value)
    if value is None or kind is bool or kind is complex:
        return str(value)
    if issubclass(kind, str):
        text = str.__getitem__(value, slice(_ITEM_TEXT + 1))
        return f'"{text}"' if len(text) <= _ITEM_TEXT else f'"{text[:_ITEM_TEXT]}…"'
    if issubclass(kind, Enum):
        return f"<{type_name(kind)}.{str(value._name_)[:TEXT]}>"
    if issubclass(kind, int):
        bits = int.bit_length(value)
        return int.__repr__(value) if bits <= 256 else f"<int of {bits:,} bits>"
    if issubclass(kind, float):
        return float.__repr__(value)
    if issubclass(kind, _CONTAINERS):
        return _show_items(value, kind, depth, left, hidden)
    if _is_plain(kind) and sys.getsizeof(value) <= 512:
        return f"<{type_name(kind)} {str(value)[:TEXT]}>"
    return f"<{type_name(kind)}>"


def _show_items(value: Any, kind: type, depth: int, left: list[int], hidden: Callable[[str], bool]) -> str:
    base: Any = next(base for base in _CONTAINERS if issubclass(kind, base))
    size = base.__len__(value)
    unordered = base is set or base is frozenset
    # Which items of a large set come first depends on the process, so none is shown.
    if depth <= 0 or left[0] <= 0 or (unordered and not 0 < size <= _ITEMS):
        return f"<{base.__name__} of {size:,}>"
    shown = []
    for item in islice(dict.items(value) if base is dict else base.__iter__(value), _ITEMS):
        if unordered:  # an item's share must not depend on its place
            shown.append(_show(item, depth - 1, [_ITEMS], hidden))
            left[0] -= 1
        elif left[0] <= 0:
            break
        elif base is dict:
            name = (item[0] if type(item[0]) is str else _show(item[0], depth - 1, left, hidden))[:TEXT]
            shown.append(f"{name}: {HIDDEN if hidden(name) else _show(item[1], depth - 1, left, hidden)}")
        else:
            shown.append(_show(item, depth - 1, left, hidden))
    if base is dict or unordered:  # another order is not another value
        shown.sort()
    if more := size - len(shown):
        shown.append(f"… {more:,} more")
    inside = ", ".join(shown)
    if base is list:
        return f"[{inside}]"
    return f"({inside})" if base is tuple else f"{{{inside}}}"


def _is_plain(kind: type) -> bool:
    # By sys.modules: a value cannot be of a type from a module that nobody has imported.
    return any(kind is getattr(sys.modules.get(module), name, None) for module, name in _PLAIN)


_type_name = type.__dict__["__name__"].__get__  # not by way of a metaclass's own __name__


def type_name(kind: type) -> str:
    name: str = _type_name(kind)
    return name[:TEXT]


def short_name(name: object) -> str:
    """A parameter's or a tool's name, whatever was given as one, as a text of at most 101 characters."""
    if type(name) is not str:
        name = read_key(value_key(name))[1]
    return name if len(name) <= TEXT else name[:TEXT] + "…"


def read_key(key: str) -> tuple[bool, str]:
    """Whether a key stands for a text, and what to show for it."""
    if key[:1] != "\0":
        return True, key
    kind = key[1]
    if kind == "c":
        return True, key[10:] + "..."
    return kind == "t", key[10:] if kind == "f" else key[2:]


_READS_LIKE_A_VALUE = re.compile(rf'[<\[{{("]|(-?([0-9]+(\.[0-9]+)?(e[-+][0-9]+)?|inf)|nan|True|False|None|{HIDDEN})\Z')


def usage_key(key: str) -> str:
    """How `parameter_usage` names a value: texts as they are, in double quotes where they read like another value."""
    is_text, shown = read_key(key)
    return f'"{shown}"' if is_text and _READS_LIKE_A_VALUE.match(shown) else shown


def printable(text: str) -> str:
    """The text with line breaks, escape sequences and other invisible signs spelt out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ---------------------------------------------------------------------------------------------- the patterns


class Pattern(msgspec.Struct, frozen=True):
    """What one parameter of one tool was given: its most common value, and how many different ones.

    `str()` of it is its line in the summary. `most_common_count` is a lower bound unless `count_exact`, and
    `distinct` an estimate of standard error 2.3 % unless `distinct_exact` (up to 64 different values).
    """

    name: str
    calls: int
    most_common: str  # texts in double quotes
    most_common_count: int
    count_exact: bool
    distinct: int
    distinct_exact: bool

    def __str__(self) -> str:
        line = f"{printable(self.name)}: {self.most_common}"
        if self.distinct == 1:
            return line
        count = f"{'' if self.count_exact else '≥'}{self.most_common_count}x"
        return f"{line} ({count}, {'' if self.distinct_exact else '~'}{self.distinct} unique)"


class Policy:
    """Which parameters are followed, which are shown as •••, and how many more there may be."""

    __slots__ = ("_allow", "_deny", "_known", "left")

    def __init__(self, allow: Iterable[str] | None = None, deny: Iterable[str] | None = None) -> None:
        self._allow = None if allow is None else _names(allow)
        self._deny = _names(deny or ())
        self._known: dict[str, bool] = {}
        self.left = ALL_PARAMETERS

    def fresh(self) -> Policy:
        """The same rules with nothing followed yet."""
        return Policy(self._allow, self._deny)

    def follows(self, tool: str, name: str) -> bool:
        full = f"{tool}.{name}"
        if name in self._deny or full in self._deny:
            return False
        return self._allow is None or name in self._allow or full in self._allow

    def hides(self, name: str) -> bool:
        """Whether the value under this name is shown as •••: of a parameter, or of a key inside one."""
        known = self._known.get(name)
        if known is None:
            known = name in self._deny or is_secret(name)
            if len(self._known) < ALL_PARAMETERS:
                self._known[name] = known
        return known


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names)


class _Hidden(TopValues):
    """Counts what it is given and forgets it at once."""

    __slots__ = ()

    def add(self, text: str) -> None:
        super().add(MASKED)


class ToolParameters:
    """The parameters of one tool. Does not lock."""

    __slots__ = ("_policy", "_tool", "_values", "other")

    def __init__(self, tool: str, policy: Policy) -> None:
        self._tool = tool
        self._policy = policy
        self._values: dict[str, TopValues] = {}
        self.other = 0  # arguments of parameters beyond those that are followed

    def add(self, params: object) -> None:
        """Count the arguments of one call, a mapping by name or anything else; never raises."""
        try:
            if issubclass(type(params), dict):
                items: Iterable[tuple[Any, Any]] = dict.items(params)  # type: ignore[arg-type]
                self.other += max(0, dict.__len__(params) - _MOST)  # type: ignore[arg-type]
            elif params is None:
                return
            elif isinstance(params, Mapping):
                items = params.items()
            else:
                items = ((WHOLE_INPUT, params),)
            for name, value in islice(items, _MOST):
                if type(name) is not str or len(name) > TEXT:
                    name = short_name(name)
                values = self._values.get(name)
                if values is None and (values := self._follow(name)) is None:
                    continue
                if type(value) is str and len(value) <= TEXT and value[:1] != "\0":
                    values.add(value)
                else:
                    values.add(value_key(value, self._policy.hides))
        except Exception:  # a mapping of the caller's own, or one that another thread is changing
            self.other += 1

    def _follow(self, name: str) -> TopValues | None:
        policy = self._policy
        if not policy.follows(self._tool, name):
            return None
        if len(self._values) >= PARAMETERS or policy.left <= 0:
            self.other += 1
            return None
        policy.left -= 1
        values = self._values[name] = _Hidden() if policy.hides(name) else TopValues()
        return values

    def read(self) -> tuple[dict[str, dict[str, int]], dict[str, Pattern]]:
        """By parameter name, sorted: how often it had its most common values (what is missing to its calls under
        "(other)"), and its pattern.
        """
        usage, patterns = {}, {}
        for name, values in sorted(self._values.items()):
            rows = values.top(VALUES)
            counts: dict[str, int] = {}
            for key, low, _ in rows:
                shown = usage_key(key)
                counts[shown] = counts.get(shown, 0) + low
            if rest := values.total - sum(counts.values()):
                counts[OTHER] = rest
            usage[name] = counts

            key, low, high = rows[0]
            is_text, shown = read_key(key)
            shown = printable(shown)
            if is_text:
                shown = '"' + shown.replace('"', '\\"') + '"'
            exact = values.exact
            patterns[name] = Pattern(name, values.total, shown, low, low == high, values.distinct, exact)
        return usage, patterns
