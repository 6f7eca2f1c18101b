"""Introductions: who asks what the kernel is, and when they are told."""

from __future__ import annotations

import pytest

from container_kernel.kernel.introductions import Introductions
from container_kernel.kernel.loop import Loop


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def told():
    return []


@pytest.fixture
def introductions(loop, told):
    return Introductions(loop, told.append)


def test_without_a_wait_everybody_is_told_at_once(introductions, told):
    introductions.ask("a")
    assert told == ["a"]


def test_during_a_wait_nobody_is_told_and_behind_it_all_are_in_order(introductions, told):
    introductions.wait(60)
    introductions.ask("a")
    introductions.ask("b")
    assert told == []
    introductions.end_wait()
    introductions.ask("c")
    assert told == ["a", "b", "c"]


def test_a_wait_ends_by_itself(introductions, told, loop):
    introductions.wait(0.01)
    introductions.ask("a")
    loop.call_later(0.05, loop.stop)
    loop.run()
    assert told == ["a"]
