"""Record: classes that are values, declared as dataclasses are, and cheap to declare.

``dataclasses`` writes and compiles every method of every class at import: 0.7 ms a class, a third
of a kernel's start. Here all methods are shared by all records; ``__init__`` is compiled for those
of which many values are made. Type checkers read a record as a dataclass (PEP 681).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, dataclass_transform, overload

T = TypeVar("T")

_MISSING: Any = object()
_FEW = 16
"""To compile an ``__init__`` takes as long as it saves in some fifty values."""


class Field:
    """How one field differs from a plain one."""

    __slots__ = ("factory", "is_hashed", "is_shown")

    def __init__(self, factory: Callable[[], Any], *, is_hashed: bool, is_shown: bool) -> None:
        self.factory = factory
        self.is_hashed = is_hashed
        self.is_shown = is_shown


def field(*, default_factory: Callable[[], Any], hash: bool = True, repr: bool = True) -> Any:
    """A field whose default is made anew for each value."""
    return Field(default_factory, is_hashed=hash, is_shown=repr)


@overload
def record(cls: type[T], /) -> type[T]: ...
@overload
def record(
    *, frozen: bool = True, kw_only: bool = False, order: bool = False
) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(
    cls: type[T] | None = None,
    /,
    *,
    frozen: bool = True,
    kw_only: bool = False,
    order: bool = False,
) -> type[T] | Callable[[type[T]], type[T]]:
    """Make a class with annotated fields a record: compared by value; unchangeable if ``frozen``.

    A ``frozen`` record can be hashed. ``__post_init__`` is called when there is one. Fields are
    those of the record's bases that are records, then its own, in their order.
    """

    def declare(owner: type[T]) -> type[T]:
        _declare(owner, kw_only=kw_only)
        methods: dict[str, Any] = {
            "__repr__": _repr,
            "__eq__": _eq,
            "__hash__": _hash if frozen else None,
        }
        if frozen:
            methods |= {"__setattr__": _refuse, "__delattr__": _refuse}
        if order:
            methods["__lt__"] = _lt
        for name, method in methods.items():
            if name not in vars(owner) or (name == "__hash__" and vars(owner)[name] is None):
                setattr(owner, name, method)
        return owner

    return declare if cls is None else declare(cls)


def fields(kind: Any) -> tuple[str, ...]:
    """The names of the fields of a record, or of its class."""
    names: tuple[str, ...] = kind.__match_args__
    return names


def replace(value: T, **changes: Any) -> T:
    """A copy of ``value`` with other values in some fields."""
    return type(value)(**{name: getattr(value, name) for name in fields(value)} | changes)


def asdict(value: Any) -> dict[str, Any]:
    """The fields as a dictionary, one level deep."""
    return {name: getattr(value, name) for name in fields(value)}


def _declare(owner: type, *, kw_only: bool) -> None:
    inherited: dict[str, Any] = {}
    for base in reversed(owner.__mro__[1:]):
        inherited |= vars(base).get("__record__", {})
    own = vars(owner)
    declared = {name: own.get(name, _MISSING) for name in own.get("__annotations__", ())}
    for name, default in declared.items():
        if isinstance(default, Field):
            delattr(owner, name)
    defaults = inherited | declared

    made = itertools.count(1)

    def shared_init(self: Any, *args: Any, **kwargs: Any) -> None:
        if next(made) > _FEW or not _fill(self.__dict__, defaults, args, kwargs, kw_only):
            owner.__init__ = init = _compiled_init(owner, defaults, kw_only=kw_only)  # type: ignore[misc]
            init(self, *args, **kwargs)
        elif hasattr(owner, "__post_init__"):
            self.__post_init__()

    if "__init__" not in own:
        owner.__init__ = shared_init  # type: ignore[misc]
    owner.__record__ = defaults  # type: ignore[attr-defined]
    owner.__match_args__ = tuple(defaults)  # type: ignore[attr-defined, misc]


def _fill(
    to: dict[str, Any],
    defaults: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kw_only: bool,
) -> bool:
    """Set all fields; False where the arguments are wrong, which a compiled one says in words."""
    given = dict(zip(defaults, args, strict=False))
    if (kw_only and args) or len(args) > len(given) or not given.keys().isdisjoint(kwargs):
        return False
    values = defaults | given | kwargs
    if len(values) > len(defaults):
        return False
    for name, value in values.items():
        if value is _MISSING:
            return False
        if isinstance(value, Field):
            values[name] = value.factory()
    to.update(values)
    return True


def _compiled_init(owner: type, defaults: dict[str, Any], *, kw_only: bool) -> Callable[..., None]:
    parameters, lines = ["self"] + ["*"] * kw_only, ["to = self.__dict__"]
    for name, default in defaults.items():
        parameters.append(name if default is _MISSING else f"{name}=_defaults[{name!r}]")
        if isinstance(default, Field):
            lines.append(f"if {name} is _defaults[{name!r}]: {name} = {name}.factory()")
        lines.append(f"to[{name!r}] = {name}")
    if hasattr(owner, "__post_init__"):
        lines.append("self.__post_init__()")
    source = f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines)
    scope: dict[str, Any] = {"_defaults": defaults}
    exec(source, scope)  # as `dataclasses` and `namedtuple` do
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{owner.__qualname__}.__init__"
    return init


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(getattr(value, name) for name in value.__match_args__)


def _repr(self: Any) -> str:
    kinds = type(self).__record__
    shown = (n for n in kinds if not isinstance(kinds[n], Field) or kinds[n].is_shown)
    text = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({text})"


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _lt(self: Any, other: object) -> Any:
    return _values(self) < _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    kinds = type(self).__record__
    hashed = (n for n in kinds if not isinstance(kinds[n], Field) or kinds[n].is_hashed)
    return hash(tuple(getattr(self, name) for name in hashed))


def _refuse(self: Any, name: str, *_: object) -> NoReturn:
    raise AttributeError(f"{type(self).__qualname__}.{name} cannot be changed: it is a value")
