import json
import os

import pytest

from container_kernel.kernel.kernelspec import KernelSpec, find_spec, has_command


@pytest.fixture
def root(tmp_path):
    def open_in_image(path):
        try:
            return os.open(tmp_path / path.lstrip("/"), os.O_RDONLY)
        except OSError:
            return None

    open_in_image.path = tmp_path
    return open_in_image


def add(root, place, name, **spec):
    folder = root.path / place.lstrip("/") / name
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": ["x"], **spec}))


def test_image_without_kernels_has_none(root):
    assert find_spec(root) is None


def test_python3_is_preferred(root):
    add(root, "/usr/share/jupyter/kernels", "ir")
    add(root, "/usr/local/share/jupyter/kernels", "python3")
    assert find_spec(root).name == "python3"


def test_else_the_first_by_name(root):
    add(root, "/usr/share/jupyter/kernels", "xeus")
    add(root, "/opt/env/share/jupyter/kernels", "ir")
    assert find_spec(root).name == "ir"


def test_the_wanted_one_or_none(root):
    add(root, "/usr/share/jupyter/kernels", "python3")
    add(root, "/usr/share/jupyter/kernels", "ir")
    assert find_spec(root, "ir").name == "ir"
    assert find_spec(root, "bash") is None


def test_the_earlier_folder_wins(root):
    add(root, "/usr/share/jupyter/kernels", "a", language="late")
    add(root, "/usr/local/share/jupyter/kernels", "a", language="early")
    assert find_spec(root).language == "early"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"argv": []}', '{"argv": [1]}', '{"argv": "x"}'])
def test_a_spec_that_starts_nothing_is_left_out(root, text):
    add(root, "/usr/share/jupyter/kernels", "a")
    (root.path / "usr/share/jupyter/kernels/a/kernel.json").write_text(text)
    assert find_spec(root) is None


def test_a_spec_too_large_is_not_read(root):
    add(root, "/usr/share/jupyter/kernels", "a", filler="x" * (2 << 20))
    assert find_spec(root) is None


def test_command_names_the_connection_file():
    data = b'{"argv": ["r", "{connection_file}", "{resource_dir}/x"]}'
    spec = KernelSpec.parse("ir", data, "/usr/share/ir")
    assert spec.command("/run/c.json") == ["r", "/run/c.json", "/usr/share/ir/x"]


def test_commands_are_looked_for_on_the_path(root):
    (root.path / "opt/bin").mkdir(parents=True)
    (root.path / "opt/bin/python3").write_text("")
    assert has_command(root, "python3", "/bin:/opt/bin")
    assert not has_command(root, "python3", "/bin:relative")
