"""Package scripts: what a step of each package manager runs, in two halves.

The first half finds out what is to be installed and writes it down in ``/run/told`` (for apt a line
per package: file, size, digest; for pip requirements with digests; for npm a list). The second half
installs exactly what is written there. With a lock the first half is left out, so a locked step and
one that was not run the same commands, and make the same bytes. `step.MEANING` versions what is
written here: change the number there with the text here.
"""

from __future__ import annotations

CACHE = "/run/cache"
"""Where download caches appear in a step."""
TOLD = "/run/told"
"""Where a step and the host tell each other what is installed."""
UV = "/run/uv"
"""Where the host's uv is mounted in a ``%pip`` step."""
NPM = "/run/npm.js"
"""Where our ``npm.js`` is mounted in a ``%npm`` step."""

_APT_HEAD = f"""\
command -v apt-get >/dev/null || {{ echo "this image has no apt-get" >&2; exit 127; }}
export DEBIAN_FRONTEND=noninteractive
archives={CACHE}/apt/archives
mkdir -p {CACHE}/apt/lists/partial $archives/partial
step=$(mktemp -d {CACHE}/apt/step.XXXXXX)
trap 'rm -rf "$step"' EXIT
mkdir -p $step/lists/partial $step/archives/partial
options="-o APT::Sandbox::User=root -o Acquire::Languages=none -o Dpkg::Use-Pty=0"
options="$options -o Dir::Cache::srcpkgcache="
site="$options -o Dir::State::lists={CACHE}/apt/lists -o Dir::Cache::archives=$archives"
site="$site -o Dir::Cache::pkgcache=$step/pkgcache.bin"
"""

# With no archives of its own apt names all the files it wants.
_APT_RESOLVE = f"""\
apt-get $site -qq update
apt-get $site -o Dir::Cache::archives=$step/archives -o Acquire::ForceHash=SHA256 -qq \\
    install --print-uris --yes --no-install-recommends @WORDS@ >$step/uris
sed -n "s/^'[^']*' \\([^ ]*\\) \\([0-9]*\\) SHA256:\\([0-9a-f]*\\)$/\\1 \\2 \\3/p" $step/uris |
    LC_ALL=C sort >{TOLD}/wanted
while read -r file size digest; do
    [ -f "$archives/$file" ] || {{ download=yes; break; }}
done <{TOLD}/wanted
if [ "${{download-}}" ]; then
    apt-get $site install --download-only --yes --no-install-recommends @WORDS@
fi
"""

# The lock names files; those that nobody kept are asked of the mirror by package and version.
_APT_LOCKED = f"""\
missing=
while read -r file size digest; do
    [ -f "$archives/$file" ] && continue
    name=${{file%%_*}} rest=${{file#*_}} architecture=${{file##*_}}
    version=$(printf %s "${{rest%_*}}" | sed 's/%3a/:/g')
    architecture=${{architecture%.deb}}
    [ "$architecture" = all ] || name=$name:$architecture
    missing="$missing $name=$version"
done <{TOLD}/wanted
if [ -n "$missing" ]; then
    apt-get $site -qq update || true
    for one in $missing; do
        (cd $archives && apt-get $site -qq download "$one") || echo "$one" >>{TOLD}/gone
    done
    if [ -e {TOLD}/gone ]; then exit 3; fi
fi
"""

# What apt is shown is a repository of exactly these files, which it checks against their digests.
_APT_INSTALL = f"""\
while read -r file size digest; do
    ln "$archives/$file" "$step/$file"
    dpkg-deb -f "$step/$file"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$file" "$size" "$digest"
done <{TOLD}/wanted >$step/Packages
echo "deb [trusted=yes] file:$step ./" >$step/sources.list
exact="$options -o Dir::Etc::sourcelist=$step/sources.list -o Dir::Etc::sourceparts=/dev/null"
exact="$exact -o Dir::State::lists=$step/lists -o Dir::Cache::archives=$step/archives"
exact="$exact -o Dir::Cache::pkgcache="
apt-get $exact -qq update >/dev/null
# Byte-code of Debian's packages is compiled after they are unpacked. Told of SOURCE_DATE_EPOCH,
# Python would make byte-code that hashes its source at every import.
unset SOURCE_DATE_EPOCH
apt-get $exact install --yes --no-install-recommends @NAMES@
"""

# The image's python3 says where it imports from; uv, mounted beside it, resolves and installs.
# What is compiled from source is compiled without debug information, which would name folders.
_PIP_HEAD = f"""\
python=$(command -v python3) || {{ echo "this image has no python3: %apt python3" >&2; exit 127; }}
export UV_CACHE_DIR={CACHE}/uv UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1
export UV_NO_PROGRESS=1
export CFLAGS="-g0 ${{CFLAGS-}}" CXXFLAGS="-g0 ${{CXXFLAGS-}}"
TMPDIR=$(mktemp -d {CACHE}/uv/step.XXXXXX) && export TMPDIR  # what is left there is in no layer
trap 'rm -rf "$TMPDIR"' EXIT
here="--python $python --break-system-packages"
start=$("$python" -c 'import os, sys; print(os.stat(sys.argv[1]).st_mtime)' $TMPDIR)
"""

_PIP_RESOLVE = f"""\
{UV} pip install $here --dry-run @WORDS@ 2>$TMPDIR/plan || {{ cat $TMPDIR/plan >&2; exit 1; }}
sed -n -e 's/^ [+~] \\([^ ]*\\)==[^ ]* (from \\(.*\\))$/\\1 @ \\2/p' \\
    -e 's/^ [+~] \\([^ ]*==[^ ]*\\)$/\\1/p' $TMPDIR/plan >$TMPDIR/pins
if [ -s $TMPDIR/pins ]; then
    compile="pip compile --quiet --preview-features pylock --python $python --no-deps"
    {UV} $compile @OPTIONS@ --generate-hashes --output-file {TOLD}/requirements.txt \\
        $TMPDIR/pins >/dev/null
    # The same once more, with the names of files.
    {UV} $compile @OPTIONS@ --format pylock.toml --output-file {TOLD}/pylock.toml \\
        $TMPDIR/pins >/dev/null
fi
"""

_PIP_LOCKED = """\
locked=yes
"""

# uv tells only its log which tools it built a source with. A wheel that it has built before may be
# another image's, made by other tools: a variable of this step's own makes it build anew.
_PIP_INSTALL = f"""\
cat >$TMPDIR/log.py <<'EOF'
import re, sys
tools, has_built, has_told = set(), False, False
for line in sys.stdin:
    if line.startswith("DEBUG "):
        has_told = True
        if line.startswith("DEBUG Installing `"):
            tools.update(re.findall("`([^`=]+==[^`=]+)`", line))
    else:
        has_built = has_built or line.startswith("   Building ")
        print(line, end="", flush=True)
if has_built and not has_told:
    print("this uv does not tell which tools it builds with: they cannot be locked")
with open(sys.argv[1], "a") as file:
    for tool in sorted(tools):
        print(tool, file=file)
EOF
if [ -s {TOLD}/requirements.txt ]; then
    constraints=
    [ ! -s {TOLD}/constraints.txt ] || constraints="--build-constraints {TOLD}/constraints.txt"
    (
        echo "[extra-build-variables]"
        sed -n "s|^\\([A-Za-z0-9][A-Za-z0-9._-]*\\).*|'\\1'.CONTAINER_KERNEL_STEP = '$TMPDIR'|p" \\
            {TOLD}/requirements.txt
    ) >$TMPDIR/uv.toml
    exact() {{
        {{
            env -u UV_NO_CONFIG RUST_LOG=uv_dispatch=debug {UV} --config-file $TMPDIR/uv.toml \\
                pip install $here --no-deps @OPTIONS@ $constraints \\
                -r {TOLD}/requirements.txt "$@" 2>&1 || touch $TMPDIR/failed
        }} | "$python" $TMPDIR/log.py {TOLD}/tools
        [ ! -e $TMPDIR/failed ] || {{ rm $TMPDIR/failed; return 1; }}
    }}
    # What is locked may be in the cache, which knows it by its digest: then no network is needed.
    if [ "${{locked-}}" ] && exact --offline >$TMPDIR/said; then cat $TMPDIR/said
    else exact; fi
fi
"""

# Which file each tool came in.
_PIP_TOOLS = f"""\
number=0
for tool in $(cat {TOLD}/tools 2>/dev/null); do
    number=$((number + 1))
    echo "$tool" >$TMPDIR/tool
    {UV} $compile @OPTIONS@ --format pylock.toml \\
        --output-file {TOLD}/pylock.tool$number.toml $TMPDIR/tool >/dev/null
    {UV} pip install --quiet --python $python --no-deps @OPTIONS@ \\
        --target $TMPDIR/tools/$number -r $TMPDIR/tool
    sed -n "s/^Tag: //p" $TMPDIR/tools/$number/*.dist-info/WHEEL >{TOLD}/tool$number.tags
done
"""

# Byte-code is compiled after the sources have the time they will be frozen with, so that it
# stays valid; by time, since checking hashes costs a read of every source at every import.
_PIP_COMPILE = f"""\
folders=$("$python" - "$start" {TOLD}/installed <<'EOF'
import os, sys
start, epoch = float(sys.argv[1]) - 1, int(os.environ["SOURCE_DATE_EPOCH"])
def forget(here, name):  # where uv notes our variable
    if os.path.exists(os.path.join(here, name)):
        os.unlink(os.path.join(here, name))
        with open(os.path.join(here, "RECORD"), "r+", encoding="utf-8", newline="") as file:
            start = f"{{os.path.basename(here)}}/{{name}},"
            lines = [line for line in file if not line.startswith(start)]
            file.seek(0)
            file.writelines(lines)
            file.truncate()
folders = {{path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}}
told = open(sys.argv[2], "w", encoding="utf-8")
for folder in sorted(filter(os.path.isdir, folders)):
    print(folder)
    for here, _, names in os.walk(folder):
        if here.endswith(".dist-info") and "WHEEL" in names:
            wheel = os.path.join(here, "WHEEL")
            if os.stat(wheel).st_mtime >= start:
                lines = open(wheel, encoding="utf-8").read().splitlines()
                tags = [line[5:] for line in lines if line.startswith("Tag: ")]
                told.write(" ".join([os.path.basename(here)[:-10], *tags]) + "\\n")
                forget(here, "uv_build.json")
        for path in (os.path.join(here, name) for name in names if name.endswith(".py")):
            if os.stat(path).st_mtime >= start:
                os.utime(path, (epoch, epoch))
EOF
)
# Some packages hold files of other Pythons, which do not compile.
"$python" -m compileall -qq -j0 --invalidation-mode timestamp $folders || true
"""

# A project's packages are written down with their digests, and put exactly where they are said to
# be: so they are found out, and installed, in projects that lie where a global package's would.
_NPM_HEAD = f"""\
command -v npm >/dev/null || {{ echo "this image has no npm: %apt npm" >&2; exit 127; }}
export NPM_CONFIG_CACHE={CACHE}/npm NPM_CONFIG_UPDATE_NOTIFIER=false HOME=/tmp
export NPM_CONFIG_AUDIT=false NPM_CONFIG_FUND=false NPM_CONFIG_LOGLEVEL=error
export NPM_CONFIG_INSTALL_STRATEGY=shallow NPM_CONFIG_GLOBAL_STYLE=true
export NPM_CONFIG_INSTALL_LINKS=true NODE_DISABLE_COMPILE_CACHE=1
mkdir -p {CACHE}/npm/archives
step=$(mktemp -d {CACHE}/npm/step.XXXXXX)
trap 'cd / && rm -rf "$step"' EXIT
cd "$step"
exact() {{ node {NPM} "$1" {TOLD} {CACHE}/npm/archives; }}
"""

_NPM_RESOLVE = """\
mkdir found && cd found
echo '{}' >package.json
npm install --ignore-scripts @WORDS@ >/dev/null
exact list
cd ..
"""

# What nobody kept is asked of the registry; one that cannot be reached is not waited for.
_NPM_LOCKED = """\
export NPM_CONFIG_FETCH_RETRIES=1 NPM_CONFIG_FETCH_RETRY_MINTIMEOUT=1000
"""

_NPM_INSTALL = """\
exact fetch
exact tree
npm ci --ignore-scripts --offline
exact place
"""

SCRIPTS = {
    ("apt", False): _APT_HEAD + _APT_RESOLVE + _APT_INSTALL,
    ("apt", True): _APT_HEAD + _APT_LOCKED + _APT_INSTALL,
    ("pip", False): _PIP_HEAD + _PIP_RESOLVE + _PIP_INSTALL + _PIP_TOOLS + _PIP_COMPILE,
    ("pip", True): _PIP_HEAD + _PIP_LOCKED + _PIP_INSTALL + _PIP_COMPILE,
    ("npm", False): _NPM_HEAD + _NPM_RESOLVE + _NPM_INSTALL,
    ("npm", True): _NPM_HEAD + _NPM_LOCKED + _NPM_INSTALL,
}
"""By manager, and by whether the step is locked."""
