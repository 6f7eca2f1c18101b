"""Foreign: what in a cell belongs to somebody else, IPython's magics and code in general."""

from __future__ import annotations

import re

LINE_MAGICS = frozenset(
    """
    alias alias_magic autoawait autocall automagic autosave bookmark cat cd clear code_wrap colors
    conda config connect_info cp debug dhist dirs doctest_mode ed edit env gui hist history
    killbgscripts ldir less lf lk ll load load_ext loadpy logoff logon logstart logstate logstop ls
    lsmagic lx macro magic mamba man matplotlib micromamba mkdir more mv notebook page pastebin pdb
    pdef pdoc pfile pinfo pinfo2 pip popd pprint precision prun psearch psource pushd pwd pycat
    pylab qtconsole quickref recall rehashx reload_ext rep rerun reset reset_selective rm rmdir run
    save sc set_env store subshell sx system tb time timeit unalias unload_ext uv who who_ls whos
    xdel xmode
    """.split()  # noqa: SIM905 (readable as it stands)
)
"""Line magics of IPython and ipykernel."""

CELL_MAGICS = frozenset(
    """
    bash capture code_wrap debug file html HTML javascript js latex markdown perl prun pypy python
    python2 python3 ruby script sh svg SVG sx system time timeit writefile
    """.split()  # noqa: SIM905 (readable as it stands)
)
"""Cell magics of IPython."""

IPYTHON = frozenset({f"%{name}" for name in LINE_MAGICS} | {f"%%{name}" for name in CELL_MAGICS})
"""All of them, as they are called."""

AGENT = frozenset(
    """
    %cat %cd %config %cp %debug %hist %history %ll %ls %lsmagic %matplotlib %mkdir %mv %pinfo
    %pinfo2 %pwd %reset %rm %rmdir %run %set_env %sx %system %tb %time %timeit %who %who_ls %whos
    %%HTML %%SVG %%bash %%capture %%file %%html %%javascript %%js %%latex %%markdown %%perl
    %%python %%python2 %%python3 %%ruby %%script %%svg %%sx %%system %%time %%timeit %%writefile
    """.split()  # noqa: SIM905 (readable as it stands)
)
"""The magics that ``agent/python.py`` knows."""

# Enough of Python's (and most languages') lexical grammar to tell where a statement may begin.
# Compiled (1 ms) for the first cell that needs it, and then kept by ``re``.
_TOKEN = r"""(?xs)
      (?P<string>   ('''|\"\"\") (?:\\.|(?!\2).)* (?:\2|\Z)
                  | "(?:\\.|[^"\\\n])*"?  |  '(?:\\.|[^'\\\n])*'? )
    | (?P<comment>  \#[^\n]* )
    | (?P<open>     [(\[{] )
    | (?P<close>    [)\]}] )
    | (?P<joined>   \\\r?\n )
"""


def is_statement(code: str, offset: int) -> bool:
    """Whether a statement of ``code`` may begin at ``offset``, the first column of a line.

    False inside a string, brackets or a line that was continued. Where this errs (unbalanced
    quotes in a shell line, say) it errs towards False: the text is then the inner kernel's.
    """
    depth = 0
    for token in re.finditer(_TOKEN, code):
        if token.start() >= offset:
            break
        if token.end() > offset:
            return False
        if token.lastgroup == "open":
            depth += 1
        elif token.lastgroup == "close":
            depth = max(0, depth - 1)
        elif token.lastgroup == "joined" and token.end() == offset:
            return False
    return depth == 0
