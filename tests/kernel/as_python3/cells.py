"""Cells, and all that comes of them: results, errors, displays, texts of every origin."""

# ruff: noqa: E501

from __future__ import annotations

from .table import SHARED, shared

CELLS = {
    "result": "6 * 7",
    "no result behind a semicolon": "6 * 7;",
    "no result of None": "None",
    "last expression only": "1\n2\n3",
    "an empty cell": "",
    "a comment": "# nothing",
    "Out and underscore": "_, Out[1] if 1 in Out else None",
    "stdout": "print('hello')",
    "stderr": "import sys; print('oh', file=sys.stderr)",
    "stdout and stderr in turn": (
        "import sys\nfor n in range(4):\n"
        "    print('out', n, flush=True); print('err', n, file=sys.stderr, flush=True)"
    ),
    "texts and displays in turn": "for n in range(3):\n    print(n); display(n)",
    "no end of line": "print('a', end=''); print('b', end='')",
    "letters of all kinds": "print('žluťoučký \\U0001f40e \\x00 \\x1b[31mred\\x1b[0m \\r')",
    "a lone surrogate": "'\\ud800'",
    "a long text": "print('x' * 300_000)",
    "many lines": "for n in range(5000): print(n)",
    "a syntax error": "def f(:",
    "an indentation error": "if True:\nprint(1)",
    "a name error": "nowhere",
    "an error in functions": "def f(x):\n    return g(x)\ndef g(x):\n    return 1 / x\nf(0)",
    "chained errors": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('b') from e",
    "an error in handling": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}['k']",
    "an error group": "raise ExceptionGroup('both', [ValueError(1), TypeError(2)])",
    "an error with notes": "e = ValueError('v'); e.add_note('a note'); raise e",
    "an error that draws itself": (
        "class Own(Exception):\n    def _render_traceback_(self):\n        return ['drawn']\nraise Own('x')"
    ),
    "an error without a text": "class E(Exception):\n    def __str__(self): 1 / 0\nraise E",
    "an error of a repr": "class R:\n    def __repr__(self): raise RuntimeError('r')\nR()",
    "an error of a repr_html": "class H:\n    def _repr_html_(self): raise RuntimeError('h')\nH()",
    "an error of a module": "import of_the_folder; of_the_folder.fail()",
    "an assertion": "assert 1 == 2, 'not so'",
    "a raised interrupt": "raise KeyboardInterrupt('by hand')",
    "SystemExit": "import sys; sys.exit('stopped')",
    "text before an error": "print('before'); 1 / 0",
    "a warning": "import warnings; warnings.warn('careful')",
    "a deep recursion": "def deep(): deep()\ndeep()",
    "await": "import asyncio; await asyncio.sleep(0.01, 'slept')",
    "async for": "async def ns():\n    yield 1\n    yield 2\nasync for n in ns(): print(n)",
    "an error in await": "async def fail(): 1 / 0\nawait fail()",
    "a task": "async def late(): print('task')\nawait asyncio.gather(late(), late());",
    "display of text": "display('text')",
    "displays": "display(1, 'two', [3])",
    "HTML": "from IPython.display import *; HTML('<b>bold</b>')",
    "Markdown and LaTeX": "display(Markdown('# m'), Latex('$x$'), Math('x'))",
    "JSON": "JSON({'a': [1]}, expanded=True)",
    "Javascript": "Javascript('1')",
    "SVG": "SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>')",
    "a picture": "Image(b'\\x89PNG\\r\\n\\x1a\\n0000IHDR00000000', format='png', width=3)",
    "a video of data": "Video(b'v', embed=True, mimetype='video/mp4')",
    "raw data": "display({'application/x+json': {'k': 1}, 'text/plain': 't'}, raw=True, metadata={'m': 1})",
    "a mimebundle": (
        "class M:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        "        return {'text/plain': 'p', 'text/x': 'x'}, {'text/x': {'m': 1}}\nM()"
    ),
    "a display changed": "h = display('one', display_id='d'); h.update('two')",
    "a display of no id given": "h = display('one', display_id=True); h.update('two')",
    "a display changed by another cell": "update_display('three', display_id='d')",
    "a display with transient data": "publish_display_data({'text/plain': 't'}, transient={'k': 1})",
    "clear_output": "print(1); clear_output()",
    "clear_output that waits": "print(1); clear_output(wait=True); print(2)",
    "a progress of text": "print('1 %', end='\\r'); print('2 %')",
    "text of a command": "!echo from a shell",
    "a failing command": "!exit 3",
    "text of a command as a value": "found = !echo one; echo two\nfound",
    "text of os.system": ("import os; os.system('echo of the system');", "of the system\n"),
    "text of a child": ("import subprocess; subprocess.run(['echo', 'of a child']);", "child\n"),
    "errors of a child": ("subprocess.run('echo wrong >&2', shell=True);", "wrong\n"),
    "text to descriptor 1": ("os.write(1, b'to the descriptor\\n');", "descriptor\n"),
    "text of C": ("import ctypes; c = ctypes.CDLL(None); c.puts(b'of C'); c.fflush(None);", "of C\n"),
    "text of a forked child": (
        "import os\nif os.fork() == 0:\n    print('forked', flush=True); os._exit(0)\nos.wait();", "forked\n"
    ),
    "text of a process": (
        "import multiprocessing as m; p = m.get_context('fork').Process(target=print, args=('process',))\n"
        "p.start(); p.join()",
        "process\n",
    ),
    "text of a thread": "import threading\nt = threading.Thread(target=print, args=('thread',))\nt.start(); t.join()",
    "text after the end": (
        "import time\ndef later():\n    time.sleep(0.3); print('later')\nthreading.Thread(target=later).start()",
        "later\n",
    ),
    "text of a task after the end": (
        "async def later():\n    await asyncio.sleep(0.3); print('task later')\n"
        "task = asyncio.get_running_loop().create_task(later())",
        "task later\n",
    ),
    "text of logging": "import logging; logging.warning('logged')",
    "what stdout is": "sys.stdout.isatty(), sys.stdout.encoding, type(sys.stdout).__name__, sys.stdin.fileno()",
    "sys.argv and name": "len(sys.argv), __name__, '' in sys.path",
    "%%capture": "%%capture kept\nprint('captured')",
    "what was captured": "kept.stdout",
    "%%writefile": "%%writefile written.txt\nline",
    "%%bash": "%%bash\necho of bash; echo wrong >&2",
    "a failing %%bash": "%%bash\nexit 3",
    "%%html": "%%html\n<i>x</i>",
    "%%javascript": "%%javascript\n1",
    "%run": "%run of_the_folder.py",
    "%pwd": "%pwd",
    "%who": "%reset -f\na = 1\n%who",
    "%whos": "%whos",
    "%xmode": "%xmode Plain\n%xmode Context",
    "%config": "%config InlineBackend.figure_formats",
    "%alias_magic": "%alias_magic t timeit",
    "an unknown magic": "%nowhere",
    "an unknown cell magic": "%%nowhere\n1",
    "help": "len?",
    "help of nothing": "nowhere_at_all?",
    "source": "import of_the_folder\nof_the_folder.fail??",
    "a pattern": "*int*?",
    "%load": "%load of_the_folder.py",
    "next input": "get_ipython().set_next_input('x = 1')",
    "a payload": "get_ipython().payload_manager.write_payload({'source': 'own', 'k': 1})",
    "faulthandler": "import faulthandler, io; faulthandler.enable(); faulthandler.is_enabled()",
    "line and cell magics listed": "sorted(get_ipython().magics_manager.lsmagic()['line'])",
    "the handler of SIGINT": "import signal; signal.getsignal(signal.SIGINT).__name__",
    "a display of megabytes": "display({'text/plain': 'x' * 3_000_000}, raw=True)",
    "%%sh": "%%sh\necho of sh",
}  # fmt: skip


def _cell(name, code, late=None):
    def behave(client):
        told = client.run(code, late=late)
        if late:  # on which side of the idle status it comes is ipykernel's threads' to say
            told["outputs"].sort(key=lambda m: m["content"].get("execution_state") == "idle")
        return told

    SHARED[f"cell: {name}"] = behave


for _name, _code in CELLS.items():
    _cell(_name, *([_code] if isinstance(_code, str) else _code))


@shared
def prints_come_in_their_cells(client):
    """What a thread prints while later cells run belongs to the cell that ran it or runs now."""
    client.run("import threading, time; go = threading.Event()")
    first = client.execute(
        "def say():\n    print('before', flush=True); go.wait(10); print('during', flush=True)\n"
        "t = threading.Thread(target=say); t.start(); time.sleep(0.2)"
    )
    second = client.execute("go.set(); t.join()")
    return [client.told(first), client.told(second)]


@shared
def figures(client):
    """Matplotlib's own version is the image's: kinds of data and sizes are what counts."""
    told = client.run(
        "%matplotlib inline\nimport matplotlib.pyplot as p; p.plot([1, 2]); p.title('t')"
    )
    for message in told["outputs"]:
        if "data" in message["content"]:
            data = message["content"]["data"]
            message["content"]["data"] = {k: k == "text/plain" and data[k] for k in data}
    return told


@shared
def figures_in_another_format(client):
    told = client.run("%config InlineBackend.figure_formats = ['svg']\np.plot([1, 2]);")
    client.run("%config InlineBackend.figure_formats = ['png']")
    return [sorted(m["content"]["data"]) for m in told["outputs"] if "data" in m["content"]]
