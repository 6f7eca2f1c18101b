"""Commands: the table of every magic; parsing, help, completion and docs all read it.

One entry says what a magic is called, what it takes and what it is for. Positional arguments are
written the usual way (``REF``, ``SRC... DST``, ``[TAG]``), and the counts are read from there.
"""

from __future__ import annotations

from types import MappingProxyType

from ..record import replace
from ..runtime.relaxed import capability
from . import values
from .declaring import Flag, Magic
from .limit_flags import LIMIT_FLAGS

_STAGE = Flag("--stage", "the stage, instead of the current one", "STAGE", kind="stage")
_FAILED = Flag("--failed", "in what the step that failed last has left")
_JSON = Flag("--json", "also as data, for programs")
_FILES = Flag("--requirement", "a file with one package per line", "FILE", "-r", True, kind="path")
_SESSION = (
    Flag("--restart", "run the cells that follow in a new session"),
    Flag("--no-restart", "keep the session, if need be on its old image"),
)
_CAN_INSTALL = "The word install may be left out. "
_PIP_FLAGS = (
    _FILES,
    Flag("--pre", "also versions that are not final"),
    Flag("--no-deps", "only these packages, not what they need"),
    Flag("--upgrade", "newer versions of what the image has already", short="-U"),
    Flag("--index-url", "look only here for packages", "URL"),
    Flag("--extra-index-url", "look here too", "URL", repeats=True),
    *_SESSION,
)
_LIMITS = tuple(Flag(f"--{one.name}", one.help, one.value, read=one.read) for one in LIMIT_FLAGS)
_NETS = ("none", "host", "pasta", "python", "apt", "npm")
_MOUNT = Flag("--mount", "SRC:DST[:rw], or volume:NAME:DST", "MOUNT", repeats=True,
              read=values.mount)  # fmt: skip
_CONNECTIONS = (
    Flag("--net", "none (default), host, pasta, or python,example.org:443", "NET",
         read=values.net, offers=_NETS, default="none"),
    Flag("--publish", "a port of it on this host, 8888 or HOST:PORT", "PORT",
         repeats=True, read=values.port),
    _MOUNT,
    Flag("--tmpfs", "a folder in memory, DIR or DIR:SIZE", "DIR", repeats=True, read=values.tmpfs),
)  # fmt: skip

_BUILD = (
    Magic(
        name="base", takes="REF", summary="Start a stage from an image.", kind="base",
        details="REF is a base definition, a tag in the store, an image at a registry, an OCI "
        "layout folder, an OCI or docker archive, a tar of a root file system, or another "
        "notebook. It comes first in its cell.",
        example="%base debian:bookworm",
        flags=(Flag("--as", "name of the stage, so that a notebook can have several", "STAGE",
                    default="main"),),
    ),
    Magic(
        name="build", is_cell=True, summary="Run the cell in a shell and freeze it as one layer.",
        details="The body runs under sh with set -e. What it changes is the layer; if it fails, "
        "nothing is frozen and the next cell can look around.",
        example="%%build --name fonts\nmkdir -p /usr/share/fonts\nfc-cache",
        flags=(
            Flag("--name", "what the layer is called in lists", "NAME"),
            Flag("--net", "none, host, pasta (default), or python,example.org:443",
                 "NET", read=values.net, offers=_NETS),
            Flag("--cache", "a folder kept between builds and in no layer", "DIR", repeats=True,
                 read=values.folder),
            _MOUNT,
            Flag("--secret", "what it reads in /run/secrets/ID; kept nowhere", "ID",
                 repeats=True, read=values.secret),
            Flag("--ssh", "let the step use your ssh agent"),
            Flag("--device", "a device that your configuration allows", "PATH", repeats=True,
                 read=values.device),
            *_SESSION,
        ),
    ),
    Magic(
        name="apt", takes="[PACKAGE]...", summary="Install Debian packages as one layer.",
        details=_CAN_INSTALL + "Package lists and downloads stay out of the layer.",
        example="%apt git libgomp1", flags=(_FILES, *_SESSION),
        already=("-y", "--yes", "-q", "-qq", "--quiet", "--no-install-recommends"),
    ),
    Magic(
        name="pip", takes="[PACKAGE]...", summary="Install Python packages as one layer.",
        details=_CAN_INSTALL + "It works in any image with a python3, with no pip inside.",
        example="%pip pandas 'scikit-learn>=1.5'", flags=_PIP_FLAGS,
        already=("-q", "--quiet", "--no-cache-dir", "--break-system-packages", "--no-input"),
    ),
    Magic(
        name="npm", takes="[PACKAGE]...", summary="Install Node packages as one layer.",
        details=_CAN_INSTALL + "Packages are installed for the whole image, by the image's npm.",
        example="%npm typescript", flags=(_FILES, *_SESSION),
        already=("-g", "--global", "-q", "--silent", "--no-audit", "--no-fund"),
    ),
    Magic(
        name="copy", takes="SRC... DST", summary="Copy files into the image, as one layer.",
        details="SRC is in the notebook's folder. With --from it is in another stage.",
        example="%copy requirements.txt /opt/app/", kind="path",
        flags=(Flag("--from", "the stage to copy from", "STAGE", kind="stage"), *_SESSION),
    ),
    Magic(
        name="download", takes="URL DIGEST [DST]", summary="Add a file from the web by its digest.",
        details="The digest is sha256:..., as sha256sum prints it. A DST that ends in / is a "
        "folder; without DST the file lands in the working directory.",
        example="%download https://example.org/data.csv sha256:<64 hex digits> /opt/data/",
        flags=_SESSION,
    ),
    Magic(name="env", takes="NAME=VALUE...", summary="Set environment variables. No layer.",
          example="%env LANG=C.UTF-8 OMP_NUM_THREADS=2"),
    Magic(name="workdir", takes="DIR", summary="Set the working directory. No layer.",
          example="%workdir /opt/app"),
    Magic(name="user", takes="USER", summary="Set the user of what comes next. No layer.",
          details="USER is a name or a number of the image, or USER:GROUP.",
          example="%user 1000:1000"),
    Magic(name="label", takes="NAME=VALUE...", summary="Label the image. No layer.",
          example="%label org.opencontainers.image.title=iris"),
    Magic(name="entrypoint", takes="WORD...", is_verbatim=True, example="%entrypoint python3 -m",
          summary="Set the command the image starts with. No layer."),
    Magic(name="cmd", takes="WORD...", is_verbatim=True, example="%cmd http.server 8000",
          summary="Set the image's default command or its arguments. No layer."),
)  # fmt: skip

_COMMANDS = (
    Magic(name="use", takes="STAGE", summary="Run the following cells in another stage.",
          kind="stage", example="%use test"),
    Magic(
        name="send", takes="NAME...", summary="Make variables of one stage variables of another.",
        details="Text, numbers, lists and dicts go from Python to Python; in a shell all is text. "
        "Files need no sending: /work is the same folder in all stages.",
        example="%send accuracy labels --to report",
        flags=(
            Flag("--to", "the stage they go to", "STAGE", kind="stage", is_needed=True),
            Flag("--from", "the stage they are in, instead of the current one", "STAGE",
                 kind="stage"),
            Flag("--as", "what the variable is called there", "NAME"),
        ),
    ),
    Magic(name="layers", summary="Show the image's layers and digest.", flags=(_JSON,),
          takes="[STAGE]", kind="stage", example="%layers"),
    Magic(
        name="freeze", takes="[TAG]", kind="tag", example="%freeze iris:explored",
        flags=(_STAGE, Flag("--kernel", "make it a kernel of this name in the launcher", "NAME",
                            read=values.kernel)),
        summary="Freeze what run cells wrote as a layer.",
        details="Scratch is lost with the container. This keeps it, and proposes the build cells "
        "that would have made it: packages by %apt, %pip and %npm, small texts and links by "
        "%%build, the rest by %copy out of the frozen image. What was left out is named.",
    ),
    Magic(name="undo", example="%undo",
          summary="Go back to the environment before the last build step or freeze.",
          details="Following cells run there until a build cell is run; no layer is lost. Only for "
          "live sessions: container-kernel run and build pass over it."),
    Magic(name="checkout", takes="[ENV]", kind="tag", example="%checkout before-torch",
          summary="Run the following cells in another environment, or list this session's.",
          details="ENV is a tag, a digest, a branch, @N of the list, or a stage: what its cells "
          "build. It holds until a build cell is run. Only for live sessions, as %undo."),
    Magic(name="branch", takes="[NAME]", example="%branch before-torch",
          summary="Name the session's environment, or list the names.",
          details="It stays the notebook's. After %checkout NAME, %freeze moves it on."),
    Magic(name="diff", takes="[A] [B] [PATH]", flags=(_JSON,), example="%diff @1 now", kind="tag",
          summary="Show what differs between two environments: packages, settings, files.",
          details="A and B are tags, digests, branches, stages, numbers of steps, @N of %checkout, "
          "or now, with what cells wrote. Without B it is now; without A, what was before the last "
          "build step. PATH shows how that text file differs."),
    Magic(name="why", takes="[CELL]", example="%why 2",
          summary="Say why steps were cached or had to run.",
          details="CELL is a step's number, the id of its cell, or words of its title. It says "
          "what of all that a step depends on changed, from what to what, and since which run."),
    Magic(name="stale", summary="List outputs that another image made.", example="%stale",
          details="Of cells that container-kernel run executed: it notes in their metadata where "
          "they ran. container-kernel run --stale runs these again."),
    Magic(name="lock", summary="Write the lock: what the image is made of, exactly.",
          details="The lock lies beside the notebook, as NAME.lock.json. With --locked, "
          "container-kernel run and build take what it names, or refuse. It names every package "
          "that was installed, and the tools that built those that came as source.",
          example="%lock"),
    Magic(name="verify", summary="Build everything once more and compare, to the bit.",
          details="In a store of its own, from nothing. If a layer differs, the files in it that "
          "do so are shown, and the likely cause.", flags=(_JSON,), example="%verify"),
    Magic(
        name="export", takes="FORMAT", example="%export dockerfile", flags=(
            _STAGE,
            Flag("--output", "where to, instead of a folder named after the format", "PATH", "-o",
                 kind="path"),
        ),
        summary="Write the environment in another tool's words.",
        details="Formats: dockerfile and devcontainer (for docker and buildah), repo2docker, "
        "requirements (requirements.txt and apt.txt, exact), provenance (an in-toto statement), "
        "attested (an OCI layout with bill of materials and provenance). Or the image itself, as "
        "image save writes it: oci (a folder), oci-archive, docker-archive, sqfs and erofs (one "
        "file that container-kernel exec --image mounts).",
    ),
    Magic(
        name="sbom", takes="[IMAGE]", kind="tag", example="%sbom --format cyclonedx", flags=(
            _STAGE,
            Flag("--format", "default spdx", "spdx|cyclonedx", choices=("spdx", "cyclonedx"),
                 default="spdx"),
            Flag("--output", "the file, instead of sbom.spdx.json or sbom.cdx.json", "FILE", "-o",
                 kind="path"),
        ),
        summary="Write a bill of materials: every package in the image.",
        details="Debian's, Python's and Node's packages, with versions, package URLs, and licences "
        "where the image names them.",
    ),
    Magic(name="tag", takes="NAME", summary="Give the image a name.", flags=(_STAGE,), kind="tag",
          details="A name without a tag means NAME:latest.", example="%tag iris:1.0"),
    Magic(name="images", summary="List the images in the store.", flags=(_JSON,),
          example="%images"),
    Magic(name="image list", summary="List the images in the store.", flags=(_JSON,),
          example="%image list"),
    Magic(name="image inspect", takes="[IMAGE]", kind="tag", flags=(_JSON,),
          summary="Show an image's config and layers.", example="%image inspect iris:1.0"),
    Magic(name="image tag", takes="IMAGE NAME", kind="tag", summary="Give an image another name.",
          example="%image tag iris:1.0 iris:latest"),
    Magic(name="image rm", takes="NAME...", kind="tag", summary="Remove names of images.",
          example="%image rm iris:1.0"),
    Magic(
        name="image save", takes="[IMAGE] FILE", kind="tag", example="%image save iris.tar",
        summary="Write an image to a file in the notebook's folder.",
        flags=(Flag("--format", "default oci-archive", "FORMAT", default="oci-archive",
                    choices=("oci-archive", "docker-archive", "oci", "sqfs", "erofs")),
               Flag("--layer", "of a slug (sqfs, erofs): only layer N", "N", default=0,
                    read=values.count)),
    ),
    Magic(name="image load", takes="FILE", kind="path", example="%image load iris.tar",
          summary="Read images from an archive or an OCI layout folder.",
          flags=(Flag("--as", "name of the image, instead of the one in the file", "NAME"),)),
    Magic(
        name="image push", takes="[IMAGE] NAME", kind="tag",
        example="%image push localhost:5000/iris:1.0",
        summary="Send an image to a registry: only what is missing there.",
        details="NAME begins with the registry. Without IMAGE it is what has that name here, else "
        "the current image. Logins are docker's and podman's.",
        flags=(
            Flag("--dry-run", "only say what would be sent and what is there"),
            Flag("--compression", "of layers built here; default zstd", "zstd|gzip|none",
                 choices=("zstd", "gzip", "none"), default="zstd"),
        ),
    ),
    Magic(name="image pull", takes="NAME", example="%image pull localhost:5000/iris:1.0",
          summary="Bring an image from a registry into the store.",
          details="NAME begins with the registry. Logins are docker's and podman's.",
          flags=(Flag("--as", "name of the image here, instead of NAME", "NAME"),
                 Flag("--dry-run", "only say what would be fetched and what is here"))),
    Magic(name="sh", is_cell=True, summary="Run the cell as shell in the live container.",
          details="It sees the files, not the variables, of the other cells.",
          example="%%sh\nls -l /work", flags=(_STAGE,)),
    Magic(
        name="run", takes="[CMD]...", is_cell=True, is_verbatim=True, flags=(
            _STAGE, Flag("--image", "an image instead: what %base takes", "REF", kind="tag"),
            _FAILED,
            *_CONNECTIONS, *_LIMITS,
            Flag("--as-root", "be root of the image, with root's usual rights"),
            Flag("--add-cap", "have a capability more, for example NET_RAW", "NAME", repeats=True,
                 read=capability),
            Flag("--no-seccomp", "have no system call refused"),
            Flag("--stdin", "a file of the notebook's folder as its input", "FILE", kind="path"),
            Flag("--stdin-cell", "what a cell printed: its number, its id, or last", "CELL"),
            Flag("--meters", "show how long it took, its CPU time and its peak memory"),
        ),
        already=("--fresh",),
        summary="Run the cell, or CMD, in a fresh container with these limits.",
        details="Without CMD the body is a shell script; with CMD the body is its input. "
        "The container is gone afterwards.",
        example="%%run --memory 512m --timeout 30s python3\nprint('hello')",
    ),
    Magic(
        name="shell", takes="[CMD]...", is_verbatim=True, example="%shell --failed ls -l",
        flags=(_STAGE, _FAILED),
        summary="Run a command in the live container, or where a step has failed.",
        details="With --failed it sees what the failed step left, as root, without network; what "
        "it writes is gone afterwards. Without CMD it shows what the step wrote last.",
    ),
    Magic(name="retry", summary="Run the build cell that failed last once more.", example="%retry",
          details="From the clean parent: what the failed step has written is no part of it."),
    Magic(name="discard", summary="Throw away what the failed step has written.",
          details="That also happens when it is built, when another fails, and when the kernel "
          "ends.", example="%discard"),
    Magic(
        name="limits", flags=(
            *_LIMITS, Flag("--restart", "where a limit takes a new session, start one"), _JSON,
        ),
        summary="Show or set the limits of the live container.",
        details="Without flags: what each limit is, by what it is held on this host, and how much "
        "is used. What is set holds for this notebook's containers until its kernel ends.",
        example="%limits --memory 4g --pids 512",
    ),
    Magic(
        name="top", flags=(
            Flag("--once", "one picture, and go on"),
            Flag("--interval", "time between pictures; default 1s", "TIME", read=values.duration),
            _JSON,
        ),
        summary="Show what the containers use, live.",
        details="Processor, memory, processes and disk of each running container, until the cell "
        "is interrupted. In a notebook that runs by itself (nbclient, papermill), once.",
        example="%top --once",
    ),
    Magic(
        name="isolation", takes="[require] [LEVEL]",
        summary="Show how isolated containers are here, or require it.",
        details="Levels, best first: full (limits are held by cgroups), rootless (by rlimits), "
        "single-uid (all owners in an image are one). A cell with require fails where this host "
        "gives less, and so does what follows.",
        example="%isolation require full",
    ),
    Magic(
        name="net", takes="[NET]", summary="Show or set what the session may reach.",
        details="NET is none, host (with all that listens on this host), pasta (a user-mode "
        "network), or hosts and names of sets, separated by commas: python, apt and npm are what "
        "this host's own configuration names. Another network is for a new session.",
        example="%net python,example.org:443", kind="net",
    ),
    Magic(
        name="mount", takes="[SRC] [DST]", kind="path", example="%mount ~/datasets /data",
        flags=(Flag("--rw", "let cells write there"),),
        summary="Show what is mounted, or mount a folder or file of this host.",
        details="SRC is in the notebook's folder, or absolute, or volume:NAME, which is kept in "
        "the store. The session goes on and sees it at once.",
    ),
    Magic(name="unmount", takes="DST", summary="Undo %mount.", example="%unmount /data"),
    Magic(
        name="publish", takes="[PORT]", example="%publish 8888",
        flags=(Flag("--stop", "give the port back"),),
        summary="Show or publish ports of the session on this host's loopback.",
        details="PORT:OTHER is another port here, and PORT:0 any that is free. Whoever uses this "
        "host can connect to it.",
    ),
    Magic(name="volume list", summary="List the volumes in the store.", example="%volume list"),
    Magic(name="volume rm", takes="NAME...", example="%volume rm models",
          summary="Remove volumes with all in them."),
    Magic(name="help", takes="[NAME]", summary="Show these magics, or one of them.",
          kind="magic", example="%help pip"),
)  # fmt: skip


MAGICS = MappingProxyType(
    {m.name: m for m in (*(replace(magic, is_build=True) for magic in _BUILD), *_COMMANDS)}
)
"""Every magic by name; those of two words are reached through ``group``."""

GROUPS = frozenset(name.split()[0] for name in MAGICS if " " in name)
"""First words of magics of two words."""


def group(name: str) -> tuple[str, ...]:
    """The second words that may follow ``name``."""
    return tuple(full.split()[1] for full in MAGICS if full.startswith(f"{name} "))
