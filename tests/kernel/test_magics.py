import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from container_kernel.build.step import Base, Copy, Download, Packages, Setting, Shell
from container_kernel.errors import BadArguments, CellError, UnknownMagic
from container_kernel.kernel.commands import MAGICS
from container_kernel.kernel.magics import BuildCell, CommandCell, RunCell, parse

DIGEST = "sha256:" + "a" * 64

ONE_STEP = {
    "%base debian:bookworm": Base("debian:bookworm"),
    "%base ./other.ipynb --as test": Base("./other.ipynb", "test"),
    "%base --as=test 'a folder/image.tar'": Base("a folder/image.tar", "test"),
    "%apt curl git": Packages("apt", ("curl", "git")),
    "%apt install -y --no-install-recommends curl": Packages("apt", ("curl",)),
    "%apt libc6:amd64 curl=7.88* vim/bookworm": Packages(
        "apt", ("libc6:amd64", "curl=7.88*", "vim/bookworm")
    ),
    "%apt -r packages.txt": Packages("apt", (), ("packages.txt",)),
    "%pip pandas": Packages("pip", ("pandas",)),
    "%pip install pandas": Packages("pip", ("pandas",)),
    "%pip install 'scikit-learn>=1.5' numpy<2": Packages("pip", ("scikit-learn>=1.5", "numpy<2")),
    "%pip install install": Packages("pip", ("install",)),
    "%pip install list": Packages("pip", ("list",)),
    "%pip -r a.txt -r b.txt x": Packages("pip", ("x",), ("a.txt", "b.txt")),
    "%pip --pre -U x --extra-index-url https://a/b --no-deps -q": Packages(
        "pip", ("x",), (), ("--pre", "--no-deps", "--upgrade", "--extra-index-url=https://a/b")
    ),
    "%pip 'uvicorn[standard]' 'a @ https://example.org/a.whl'": Packages(
        "pip", ("uvicorn[standard]", "a @ https://example.org/a.whl")
    ),
    "%npm i -g typescript @types/node@20": Packages("npm", ("typescript", "@types/node@20")),
    "%copy data.csv /opt/": Copy(("data.csv",), "/opt/"),
    "%copy a b /opt/ --from builder": Copy(("a", "b"), "/opt/", "builder"),
    f"%download https://example.org/d/x%20y.csv?raw=1 {DIGEST}": Download(
        "https://example.org/d/x%20y.csv?raw=1", DIGEST, "x y.csv"
    ),
    f"%download https://example.org/x {DIGEST} /opt/": Download(
        "https://example.org/x", DIGEST, "/opt/x"
    ),
    f"%download https://example.org/x {DIGEST} /opt/y": Download(
        "https://example.org/x", DIGEST, "/opt/y"
    ),
    "%env A=1 B='two words' C=": Setting("env", ("A=1", "B=two words", "C=")),
    "%workdir /opt/app": Setting("workdir", ("/opt/app",)),
    "%user 1000:1000": Setting("user", ("1000:1000",)),
    "%label org.example.a=b=c": Setting("label", ("org.example.a=b=c",)),
    "%cmd python3 -m http.server --bind ::": Setting(
        "cmd", ("python3", "-m", "http.server", "--bind", "::")
    ),
    "%entrypoint -- x": Setting("entrypoint", ("--", "x")),
    "%%build\necho hi": Shell("echo hi\n"),
    "%%build --name n --net none --cache /a --cache /b\n\n  x\n\n": Shell(
        "  x\n", "n", "none", ("/a", "/b")
    ),
    "%%build\r\necho a\r\necho b\r\n": Shell("echo a\necho b\n"),
    "%%build\ncat <<EOF\n%pip x\n%%sh\nEOF": Shell("cat <<EOF\n%pip x\n%%sh\nEOF\n"),
    "%%build --name \\\n  n\nx": Shell("x\n", "n"),
    "# why\n\n%apt curl": Packages("apt", ("curl",)),
    "  %apt curl  ": Packages("apt", ("curl",)),
    "%apt curl \\\n  git \\\n\tvim": Packages("apt", ("curl", "git", "vim")),
    "%apt curl\n\n# that was it\n": Packages("apt", ("curl",)),
}


@pytest.mark.parametrize("code", ONE_STEP)
def test_a_build_cell_is_its_step(code):
    assert parse(code) == BuildCell((ONE_STEP[code],))


def test_a_build_cell_has_as_many_steps_as_lines():
    cell = parse("# a stage\n%base debian:bookworm --as b\n\n%apt curl\n%env A=1\n")
    assert cell == BuildCell(
        (Base("debian:bookworm", "b"), Packages("apt", ("curl",)), Setting("env", ("A=1",)))
    )


FOR_THE_INNER_KERNEL = [
    "",
    "\n\n",
    "# only a comment",
    "1 + 1",
    "a % b",
    "a %pip",
    "x = '%pip install'",
    "text = '''\n%pip install pandas\n'''",
    'print("""\\"""\n%apt x\n""")',
    "f(\n%env\n)",
    "a = 5 \\\n%env",
    "d = {\n  # (\n  %pip\n}",
    "x = %pip list",
    "%timeit x\n%matplotlib inline\nplot()",
    "%matplotlib inline\n!ls",
    "!pip install x",
    "!ls",
    "ls?",
    "?str",
    "%timeit?",
    "?%timeit",
    "% pip",
    "%",
    "%%",
    "%%timeit\n%pip install x",
    "%%writefile a.txt\n%base x\n%%build\n",
    "%%html\n<p>%copy</p>",
    "%%capture\nprint(1)",
    "%%my_own_magic\nx",
    "%load_ext x",
    "%sql select 1",
    "%lprun -f x y",
    "%dotenv",
    "%run script.py",
    "%R x",
    "%cython",
    "%pipeline()",
    "import x\n%pipeline y",
    "import x\n%lables",
    "for x in y:\n    '''\n    %pip a\n    '''",
]


@pytest.mark.parametrize("code", FOR_THE_INNER_KERNEL)
def test_what_is_not_ours_goes_to_the_inner_kernel(code):
    assert parse(code, inner_magics=True) == RunCell()


ARGUMENTS = {
    "%use test": ("use", ("test",), {}),
    "%layers": ("layers", (), {"json": False}),
    "%layers test --json": ("layers", ("test",), {"json": True}),
    "%freeze": ("freeze", (), {}),
    "%freeze iris:1": ("freeze", ("iris:1",), {}),
    "%tag iris:1 --stage b": ("tag", ("iris:1",), {"stage": "b"}),
    "%images": ("images", (), {}),
    "%image list": ("image list", (), {}),
    "%image  rm a b": ("image rm", ("a", "b"), {}),
    "%image save a.tar": ("image save", ("a.tar",), {"format": "oci-archive"}),
    "%image save a b --format=oci": ("image save", ("a", "b"), {"format": "oci"}),
    "%image load a.tar --as x:1": ("image load", ("a.tar",), {"as": "x:1"}),
    "%image inspect a --json": ("image inspect", ("a",), {"json": True}),
    "%image tag a b": ("image tag", ("a", "b"), {}),
    "%help": ("help", (), {}),
    "%pip?": ("help", ("pip",), {}),
    "?%%build": ("help", ("build",), {}),
    "%image save??": ("help", ("image save",), {}),
    "%image?": ("help", ("image",), {}),
}


@pytest.mark.parametrize("code", ARGUMENTS)
def test_a_command_has_its_arguments(code):
    name, words, flags = ARGUMENTS[code]
    (command,) = parse(code).commands
    assert (command.name, command.args.words) == (name, words)
    assert {flag: command.args[flag] for flag in flags} == flags


def test_several_commands_stand_in_one_cell():
    assert [c.name for c in parse("%use a\n# and then\n%layers\n").commands] == ["use", "layers"]


def test_a_shell_cell_has_its_body():
    assert parse("%%sh\nls\n") == CommandCell(parse("%%sh\nls").commands)
    assert parse("%%sh --stage s\nls\n").commands[0].body == "ls\n"


def test_a_run_cell_has_limits_in_their_units():
    code = "%%run --memory 512m --cpus 1.5 --pids 64 --timeout 1m python3 -c 'x' --memory 1\nbody"
    (command,) = parse(code).commands
    assert command.args.words == ("python3", "-c", "x", "--memory", "1")
    assert command.args["memory"] == 512 * 2**20
    assert (command.args["cpus"], command.args["pids"]) == (1.5, 64)
    assert (command.args["timeout"], command.args["net"]) == (60.0, "none")
    assert command.body == "body\n"


def test_the_command_line_is_kept():
    assert parse("%layers  --json").commands[0].line == "%layers  --json"


WRONG = {
    "%lables": "unknown magic %lables",
    "%bulid": "unknown magic %bulid",
    "%%biuld\nx": "unknown magic %%biuld",
    "%build\nx": "unknown magic %build",
    "%%pip\nx": "unknown magic %%pip",
    "%apt": "needs a package",
    "%apt install": "needs a package",
    "%apt update": "only installs, found 'update'",
    "%pip list": "only installs, found 'list'",
    "%npm run build": "only installs, found 'run'",
    "%pip --upgrad x": "%pip has no flag --upgrad",
    "%pip -e .": "has no flag -e",
    "%pip x # why": "does not take comments, found '#'",
    "%pip -r": "needs a value",
    "%pip -- -x": "takes names of packages, found '-x'",
    "%apt Curl": "takes names of packages, found 'Curl'",
    "%apt 'curl; rm -rf /'": "takes names of packages",
    "%pip --pre=yes x": "takes no value, found 'yes'",
    "%base": "%base needs more: %base REF, found nothing",
    "%base a b": "found also 'b'",
    "%base a --as 'b c'": "found 'b c'",
    "%base a --as b --as c": "given twice",
    "%apt x\n%base y": "not the first in its cell",
    "%base x\n%base y": "not the first in its cell",
    "%copy x": "needs more: %copy SRC... DST, found x",
    "%copy a b /c": "needs a folder, found '/c'",
    "%env A": "takes NAME=VALUE",
    "%env 1A=2": "takes NAME=VALUE",
    "%env": "needs more",
    "%label =x": "takes NAME=VALUE",
    "%workdir a/b": "an absolute path, found 'a/b'",
    "%workdir /a/../b": "an absolute path",
    "%user 'a b'": "found 'a b'",
    "%cmd": "needs more",
    "%pip 'x": "a quote that is not closed",
    "%pip a\0b": "NUL character",
    "%%build": "empty body",
    "%%build\n\n  \n": "empty body",
    "%%build\n# nothing": "only comments",
    "%%build now\nx": "takes no words, found also 'now'",
    "%%build --net python,,x\nx": "separated by commas, found 'python,,x'",
    "%%build --mount /a:/b:ro,suid\nx": "no other option, found '/a:/b:ro,suid'",
    "%%run --mount a:/work/b\nx": "a target outside /work",
    "%%run --publish 0\nx": "a port such as 8888",
    "%%build --secret ../x\nx": "a name of letters",
    "%%build --device /dev/../etc\nx": "the path of a device",
    "%%build --cache var\nx": "an absolute path such as /root/.cache, found 'var'",
    "%%build --cache /proc/x\nx": "a target outside /proc, /sys, /dev, /run, found",
    "%%build --cache /\nx": "a target outside",
    "%%build --name ''\nx": "--name",
    "%%sh": "empty body",
    "%%sh --fresh\nx": "has no flag --fresh",
    "%%run --memory lots\nx": "a size from 6m on, such as 512m or 2g, found 'lots'",
    "%%run --memory 0\nx": "a size from 6m on",
    "%%run --memory 5m\nx": "a size from 6m on",
    "%%run --memory 99999999t\nx": "a size from 6m on",
    "%%run --cpus 0.001\nx": "a number from 0.01 to",
    "%%run --timeout -1\nx": "a time such as 30s or 5m",
    "%%run --pids 1.5\nx": "a whole number above zero",
    "%%run --cpus 0\nx": "a number from 0.01 to",
    "%%run": "empty body",
    "%download x": "needs more",
    f"%download ftp://a/b {DIGEST}": "http or https URL",
    "%download https://a/b sha256:12": "64 hex digits after the URL, found 'sha256:12'",
    f"%download https://a/ {DIGEST}": "ends in no file name",
    f"%download https://a/ {DIGEST} /b/": "ends in no file name",
    "%image": "needs a command: list, inspect",
    "%image lod x": "has no command 'lod'",
    "%image prune x": "has no command 'prune'",
    "%image save a b c": "found also 'c'",
    "%layers --jsn": "has no flag --jsn",
    "%use": "needs more: %use STAGE",
    "%apt curl\nimport os": "line 2 is code among magics: import os",
    "%apt curl\n%layers": "build magics and %layers are in one cell",
    "%layers\n%apt curl": "build magics and %layers are in one cell",
    "%apt curl\n%%build\nx": "%%build on line 2 is not the first line of its cell",
    "%apt curl\n%timeit x": "%timeit on line 2 stands among code",
    "%apt curl\n%lables": "unknown magic %lables",
    "import os\n%pip install x": "%pip on line 2 stands among code",
    "for x in y:\n    %pip install x": "%pip on line 2 stands among code",
    "a = '''\n'''\n%copy a b": "%copy on line 3 stands among code",
    "import os\n%%build\nx": "%%build on line 2 stands among code",
    "import os\n%image list": "%image on line 2 stands among code",
    "%matplotlib inline\n%apt x": "%apt on line 2 stands among code",
    "print(1)\n%layers": "%layers on line 2 stands among code",
    "%env.x": "a space is missing",
}


@pytest.mark.parametrize("code", WRONG)
def test_a_mistake_says_what_it_is(code):
    with pytest.raises(CellError) as caught:
        parse(code)
    assert WRONG[code] in caught.value.message


HINTS = {
    "%lables": "write %label or %layers",
    "%bulid": "write %%build",
    "%build\nx": "write %%build",
    "%%pip\nx": "write %pip",
    "%pip --upgrad x": "write --upgrade",
    "%image lod x": "write load",
    "import os\n%pip install x": "give %pip a cell of its own",
}


@pytest.mark.parametrize("code", HINTS)
def test_a_mistake_comes_with_what_to_do(code):
    with pytest.raises(CellError) as caught:
        parse(code)
    assert HINTS[code] in caught.value.hint


@pytest.mark.parametrize("code", ["%timeit x", "%%capture\nx", "%matplotlib inline"])
def test_magics_of_ipython_are_refused_by_name_where_there_is_no_ipython(code):
    with pytest.raises(UnknownMagic, match="ipykernel"):
        parse(code, inner_magics=False)


@pytest.mark.parametrize("code", ["%mine", "%%mine\nx", "%mine?"])
def test_unknown_magics_are_ours_to_refuse_where_there_is_no_ipython(code):
    with pytest.raises(UnknownMagic, match="%help"):
        parse(code, inner_magics=False)


@pytest.mark.parametrize("name", MAGICS)
def test_the_example_in_each_help_is_right(name):
    example = MAGICS[name].example.replace("<64 hex digits>", "0" * 64)
    cell = parse(example)
    assert isinstance(cell, BuildCell if MAGICS[name].is_build else CommandCell)


signs = st.sampled_from(["%", "%%", "%pip ", "%apt", "%image save", "'", '"""', "\\", "\n", "?"])
words = st.sampled_from(["%base x", "%%build\n", "--as", "-r", "=", "#", "a", " ", "\r\n", "\0"])


@given(st.lists(st.one_of(signs, words, st.text(max_size=5)), max_size=12).map("".join))
@settings(max_examples=2000, deadline=None)
def test_any_text_is_a_cell_or_a_cell_error(code):
    for inner_magics in (True, False):
        try:
            parse(code, inner_magics=inner_magics)
        except CellError as error:
            assert error.message  # noqa: PT017 (both ends are good)


def test_a_cell_is_parsed_in_less_than_a_tenth_of_a_millisecond():
    code = "%apt curl git \\\n vim\n%pip 'pandas>=2'"
    parse(code)
    laps = []
    for _ in range(50):
        start = time.perf_counter()
        parse(code)
        laps.append(time.perf_counter() - start)
    assert min(laps) < 100e-6


def test_bad_arguments_are_cell_errors():
    assert issubclass(BadArguments, CellError)
