"""Records are values: compared, hashed, copied and shown by their fields."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import pytest

from container_kernel.record import asdict, field, fields, record, replace


@record
class Point:
    x: int
    y: int = 0
    notes: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)


@record
class Named(Point):
    name: str = ""

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


@record(frozen=False)
class Counter:
    count: int = 0


@record(kw_only=True, order=True)
class Version:
    major: int
    minor: int = 0


def test_equal_fields_make_equal_values():
    assert Point(1, 2) == Point(1, y=2)
    assert Point(1, 2) != Point(1, 3)
    assert hash(Point(1, 2)) == hash(Point(1, 2, {"not": "hashed"}))
    assert Point(1, 2) != Point(1, 2, {"but": "compared"})


def test_another_class_is_another_value():
    assert Point(1) != Named(1)
    assert Point(1).__eq__((1, 0, {})) is NotImplemented


def test_what_is_frozen_stays():
    point = Point(1)
    with pytest.raises(AttributeError, match=r"Point\.x cannot be changed"):
        point.x = 2
    with pytest.raises(AttributeError, match=r"Point\.x cannot be changed"):
        del point.x


def test_what_is_not_frozen_changes_and_cannot_be_a_key():
    counter = Counter()
    counter.count += 1
    assert counter == Counter(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)


def test_fields_of_bases_come_first():
    assert fields(Named) == ("x", "y", "notes", "name")
    assert Named(1, 2, {}, "here").name == "here"


def test_post_init_is_called():
    with pytest.raises(ValueError, match="negative"):
        Named(-1)


@pytest.fixture(params=[1, 100], ids=["first", "hundredth"])
def kinds(request):
    """Two records of which one value, or a hundred, are made by now: their methods differ."""

    @record
    class Place:
        x: int
        y: int = 0
        notes: Mapping[str, str] = field(default_factory=dict)

    @record(kw_only=True)
    class Release:
        major: int
        minor: int = 0

    for _ in range(request.param - 1):
        Place(1, notes={})
        Release(major=1)
    return Place, Release


@pytest.mark.parametrize(
    ("arguments", "named", "said"),
    [
        ((), {}, "missing 1 required positional argument: 'x'"),
        ((1, 2, {}, 4), {}, "takes from 2 to 4 positional arguments but 5 were given"),
        ((1,), {"x": 2}, "multiple values for argument 'x'"),
        ((1,), {"z": 2}, "unexpected keyword argument 'z'"),
    ],
)
def test_wrong_arguments_are_a_type_error(kinds, arguments, named, said):
    place, _ = kinds
    with pytest.raises(TypeError, match=f"__init__.*{said}"):
        place(*arguments, **named)


def test_keywords_only(kinds):
    _, release = kinds
    with pytest.raises(TypeError, match="positional"):
        release(1)
    assert asdict(release(major=2)) == {"major": 2, "minor": 0}
    assert Version(major=1) < Version(major=1, minor=1)


def test_right_arguments_are_the_fields(kinds):
    place, _ = kinds
    assert asdict(place(1, notes={"a": "b"})) == {"x": 1, "y": 0, "notes": {"a": "b"}}
    assert place(y=3, x=2) == place(2, 3)
    assert place(1).notes is not place(1).notes


def test_copies_and_views():
    assert replace(Point(1, 2), y=3) == Point(1, 3)
    assert asdict(Version(major=1)) == {"major": 1, "minor": 0}
    assert repr(Point(1, 2, {"n": "hidden"})) == "Point(x=1, y=2)"


def test_pickles():
    assert pickle.loads(pickle.dumps(Named(1, name="here"))) == Named(1, name="here")


def test_matches_by_position():
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
