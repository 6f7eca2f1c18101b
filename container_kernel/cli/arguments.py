"""Arguments: the commands and what they take. Each command's module is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn

from .. import __version__
from ..errors import UsageError
from ..kernel import values
from ..kernel.limit_flags import LIMIT_FLAGS
from ..runtime.relaxed import capability

Options = argparse.Namespace
FORMATS = ("oci-archive", "docker-archive", "oci", "sqfs", "erofs")


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are our errors: exit code 2, and JSON where that is asked for."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def _later(name: str) -> Callable[..., int]:
    """The function ``name`` of a sister module, imported when it is called."""

    def call(*arguments: object) -> int:
        module, _, function = name.partition(".")
        code: int = getattr(import_module(f".{module}", __package__), function)(*arguments)
        return code

    return call


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="container-kernel", description=_TOP)
    top.add_argument("--version", action="version", version=f"container-kernel {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    made = (_run, _build, _verify, _lock, _why, _export, _sbom, _bundle)
    for add in (*made, _image, _exec, _shell, _store, _doctor, _install):
        add(commands)
    return top


_TOP = "A notebook is the image: build cells become OCI layers, all other cells run inside them."
Commands = argparse._SubParsersAction  # argparse gives the type no public name


def _command(commands: Commands[Parser], name: str, call: str, about: str) -> Parser:
    made = commands.add_parser(name, help=about, description=about)
    made.set_defaults(command=_later(call))
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def _run(commands: Commands[Parser]) -> None:
    run = _command(commands, "run", "run.run", "build and execute a notebook")
    run.add_argument("notebook", metavar="NOTEBOOK")
    run.add_argument("-o", "--output", metavar="OUT.ipynb", help="where to write it, executed")
    run.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter, as papermill does",
    )
    run.add_argument("--locked", action="store_true", help=_LOCKED)
    run.add_argument(
        "--stale",
        action="store_true",
        help="of the run cells, only those whose outputs another image made",
    )
    run.add_argument(
        "--meters",
        action="store_true",
        help="note each cell's CPU time and peak memory in the notebook too",
    )


def _build(commands: Commands[Parser]) -> None:
    build = _command(commands, "build", "build.build", "run the build cells of a notebook")
    build.add_argument("notebook", metavar="NOTEBOOK")
    build.add_argument("--no-cache", action="store_true", help="run every step again")
    build.add_argument("--locked", action="store_true", help=_LOCKED)


_LOCKED = "take exactly what the lock beside the notebook names, or refuse"


def _verify(commands: Commands[Parser]) -> None:
    about = "build a notebook once more from nothing and compare, to the bit"
    made = _command(commands, "verify", "records.verify", about)
    made.add_argument("notebook", metavar="NOTEBOOK")


def _lock(commands: Commands[Parser]) -> None:
    about = "write NAME.lock.json: what the notebook's images are made of, exactly"
    made = _command(commands, "lock", "records.lock", about)
    made.add_argument("notebook", metavar="NOTEBOOK")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--embed", action="store_true", help="into the notebook's metadata instead")
    where.add_argument("--extract", action="store_true", help="from there into the file beside it")


def _why(commands: Commands[Parser]) -> None:
    made = _command(commands, "why", "records.why", "say why steps were cached or had to run")
    made.add_argument("notebook", metavar="NOTEBOOK")
    made.add_argument("cell", metavar="CELL", nargs="?", help="a step's number, cell id or title")


def _export(commands: Commands[Parser]) -> None:
    about = "write a notebook's environment in another tool's words"
    made = _command(commands, "export", "export.export", about)
    made.add_argument("format", metavar="FORMAT", help="such as dockerfile or requirements")
    made.add_argument("notebook", metavar="NOTEBOOK")
    made.add_argument("--stage", metavar="S", help="a stage, instead of the last one used")
    made.add_argument("-o", "--output", metavar="PATH", help="where to, else beside the notebook")


def _sbom(commands: Commands[Parser]) -> None:
    about = "print a bill of materials: every package in an image"
    made = _command(commands, "sbom", "export.sbom", about)
    made.add_argument("image", metavar="NOTEBOOK|IMAGE")
    made.add_argument("--stage", metavar="S", help="a stage of the notebook")
    made.add_argument("--format", choices=("spdx", "cyclonedx"), default="spdx")
    made.add_argument("-o", "--output", metavar="FILE", help="where to, else stdout")


def _bundle(commands: Commands[Parser]) -> None:
    about = "write a notebook and its images to one file, which run takes without a network"
    made = _command(commands, "bundle", "bundle.bundle", about)
    made.add_argument("notebook", metavar="NOTEBOOK")
    made.add_argument("-o", "--output", metavar="FILE", help="default NOTEBOOK.bundle.tar")
    made.add_argument("--open", action="store_true", help="open such a file instead")


def _image(commands: Commands[Parser]) -> None:
    group = commands.add_parser("image", help="list, name, save and load images")
    verbs = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    _command(verbs, "list", "image.show_all", "list the images that have a name")
    inspect = _command(verbs, "inspect", "image.inspect", "show an image's config and layers")
    inspect.add_argument("image", metavar="IMAGE")
    tag = _command(verbs, "tag", "image.tag", "give an image another name")
    tag.add_argument("image", metavar="IMAGE")
    tag.add_argument("name", metavar="NAME")
    remove = _command(verbs, "rm", "image.remove", "remove names of images")
    remove.add_argument("names", metavar="NAME", nargs="+")
    diff = _command(verbs, "diff", "image.diff", "show what differs between two images")
    diff.add_argument("before", metavar="A")
    diff.add_argument("after", metavar="B")
    diff.add_argument("path", metavar="PATH", nargs="?", help="how this text file differs")
    save = _command(verbs, "save", "image.save", "write an image to a file")
    save.add_argument("image", metavar="IMAGE")
    save.add_argument("-o", "--output", metavar="FILE", required=True)
    save.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    save.add_argument("--layer", type=int, default=0, metavar="N", help="of a slug: only layer N")
    load = _command(verbs, "load", "image.load", "read images from an archive or OCI layout")
    load.add_argument("-i", "--input", metavar="FILE", required=True)
    load.add_argument("--as", dest="name", metavar="NAME", help="its name, whatever the file says")

    push = _command(verbs, "push", "image.push", "send an image to a registry")
    push.add_argument("image", metavar="IMAGE")
    push.add_argument("name", metavar="NAME", nargs="?", help="where to; else IMAGE says it")
    push.add_argument("--compression", choices=("zstd", "gzip", "none"), default="zstd")
    push.add_argument("--dry-run", action="store_true", help="only say what would be sent")
    pull = _command(verbs, "pull", "image.pull", "bring an image from a registry")
    pull.add_argument("image", metavar="NAME")
    pull.add_argument("--as", dest="name", metavar="NAME", help="its name here")
    pull.add_argument("--dry-run", action="store_true", help="only say what would be fetched")


def _exec(commands: Commands[Parser]) -> None:
    about = "run a command in a fresh container; its exit code is ours"
    made = _command(commands, "exec", "container.execute", about)
    _add_container(made)
    made.add_argument("words", metavar="-- CMD", nargs=argparse.REMAINDER)


def _shell(commands: Commands[Parser]) -> None:
    made = _command(commands, "shell", "container.shell", "a shell in a fresh container")
    _add_container(made)
    made.add_argument("words", metavar="-- CMD", nargs=argparse.REMAINDER)


def _add_container(made: Parser) -> None:
    where = made.add_mutually_exclusive_group()
    where.add_argument("--image", metavar="REF", help="a tag, a base, a notebook or a slug")
    where.add_argument(
        "--failed", metavar="NOTEBOOK", help="what the step left that failed last in its kernel"
    )
    made.add_argument(
        "--net", type=_value(values.net), default="none", help="none, host, pasta, or hosts"
    )
    for name, read, about in (
        ("publish", values.port, "a port inside, on this host's loopback"),
        ("mount", values.mount, "SRC:DST[:rw] or volume:NAME:DST"),
        ("tmpfs", values.tmpfs, "a folder in memory, DIR[:SIZE]"),
    ):
        made.add_argument(f"--{name}", type=_value(read), action="append", default=[], help=about)
    for flag in LIMIT_FLAGS:
        made.add_argument(
            f"--{flag.name}", type=_value(flag.read), metavar=flag.value, help=flag.help
        )
    made.add_argument("--as-root", action="store_true", help="be root of the image")
    made.add_argument(
        "--add-cap",
        type=_value(capability),
        action="append",
        default=[],
        metavar="NAME",
        help="have a capability more, such as NET_RAW",
    )
    made.add_argument("--no-seccomp", action="store_true", help="have no system call refused")


def _value(read: Callable[[str], object]) -> Callable[[str], object]:
    def checked(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"takes {error}, found {text!r}") from None

    return checked


def _store(commands: Commands[Parser]) -> None:
    group = commands.add_parser("store", help="check, clean up and measure the store")
    verbs = group.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    check = _command(verbs, "check", "store.check_store", "look for damage in the store")
    check.add_argument("--full", action="store_true", help="hash everything again")
    check.add_argument(
        "--repair", action="store_true", help="move aside what is bad, mend what can be mended"
    )
    about = "remove what no name, notebook, cache or running process needs"
    made = _command(verbs, "collect", "store.collect_store", about)
    made.add_argument("--dry-run", action="store_true", help="only say what would go, and why")
    made.add_argument(
        "--max-bytes",
        type=_value(values.size),
        metavar="SIZE",
        help="caches too, oldest use first, until the store has at most so much, such as 20g",
    )
    made.add_argument(
        "--older-than",
        type=_value(values.age),
        metavar="AGE",
        help="caches too that were not used for so long, such as 30d",
    )
    _command(verbs, "du", "store.show_usage", "what the store weighs, and whose bytes those are")


def _doctor(commands: Commands[Parser]) -> None:
    _command(commands, "doctor", "host.doctor", "what this host gives, and what to do about lacks")


def _install(commands: Commands[Parser]) -> None:
    made = _command(commands, "install", "host.install", "install the kernelspec for Jupyter")
    where = made.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for this user (the default)")
    where.add_argument("--sys-prefix", action="store_true", help="in this Python environment")
    where.add_argument("--prefix", metavar="P", help="below this folder")
    made.add_argument("--name", metavar="N", help="its name in Jupyter, else container")
    made.add_argument("--image", metavar="REF", help="an image that is to be a kernel of its own")
    made.add_argument("--display-name", metavar="TEXT", help="what the launcher shows")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="show our kernels that Jupyter has")
    what.add_argument("--remove", metavar="N", help="take a kernel of ours away again")
