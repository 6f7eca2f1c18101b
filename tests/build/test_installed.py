"""What an image has installed is read from the image, whoever made it."""

import pytest

from container_kernel.build.friends import apt, requirements
from container_kernel.build.installed import Package, packages
from container_kernel.build.step import Shell
from container_kernel.runtime.view import View

pytestmark = pytest.mark.privileged

FILL = r"""
mkdir -p /var/lib/dpkg /usr/share/doc/jq
cat >/etc/os-release <<'X'
ID=debian
VERSION_CODENAME="bookworm"
X
cat >/var/lib/dpkg/status <<'X'
Package: jq
Status: install ok installed
Architecture: amd64
Version: 1:1.6-2.1+deb12u1
Description: a text
 Version: 9

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: bad name
Status: install ok installed
Version: 1
X
printf 'Format: https://x\nLicense: MIT\nLicense: Expat\n text\nLicense: MIT\n' \
    >/usr/share/doc/jq/copyright
info() { mkdir -p "$1"; cat >"$1/METADATA"; }
info /usr/local/lib/python3.11/dist-packages/Six_Pack-1.0.dist-info <<'X'
Metadata-Version: 2.1
Name: Six_Pack
Version: 1.0
License: A text
  of several lines
Classifier: License :: OSI Approved :: MIT License

Name: not.this
X
info /opt/venv/lib/python3.11/site-packages/two-2.dist-info <<'X'
Name: two
Version: 2+local
License-Expression: Apache-2.0
X
echo '{"url": "https://example.org/two.whl"}' \
    >/opt/venv/lib/python3.11/site-packages/two-2.dist-info/direct_url.json
info /usr/lib/python3/dist-packages/debians-1.dist-info <<'X'
Name: debians
Version: 1
X
node() { mkdir -p "$1"; echo "$2" >"$1/package.json"; }
node /usr/local/lib/node_modules/left '{"name": "left", "version": "1.0.0", "license": "ISC"}'
node /usr/local/lib/node_modules/@s/in '{"name": "@s/in", "version": "2.0.0"}'
node /usr/local/lib/node_modules/left/node_modules/in '{"name": "in", "version": "3.0.0"}'
"""
FOUND = (
    Package(
        "deb", "jq", "1:1.6-2.1+deb12u1", "amd64", "Expat and MIT", distro=("debian", "bookworm")
    ),
    Package("npm", "@s/in", "2.0.0"),
    Package("npm", "in", "3.0.0"),
    Package("npm", "left", "1.0.0", licence="ISC"),
    Package("pypi", "Six_Pack", "1.0", licence="MIT License"),
    Package("pypi", "two", "2+local", licence="Apache-2.0", url="https://example.org/two.whl"),
)
HOSTILE = r"""
mkdir -p /var/lib/dpkg /a/node_modules/x /a/node_modules/y /a/p.dist-info /a/q.dist-info /b
ln -s /../../../../../../../../etc/shadow /var/lib/dpkg/status
mkfifo /a/node_modules/x/package.json
printf '[%.0s' 1 2 3 4 5 6 7 8 9 >/a/node_modules/y/package.json
mkfifo /a/p.dist-info/METADATA
printf 'Name: x\nVersion: 1\"; rm -rf /\n' >/a/q.dist-info/METADATA
ln -s / /b/loop.dist-info
ln -s . /a/node_modules/node_modules
"""


def installed(bench):
    workbench = bench.workbench
    with View(workbench.host, workbench.store, bench.image().chain_id) as view:
        return packages(view)


def test_packages_of_debian_python_and_node_are_found(bench):
    bench.build("fill", Shell(FILL))
    assert installed(bench) == FOUND


def test_a_hostile_image_has_no_packages_and_leads_nowhere(bench):
    bench.build("fill", Shell(HOSTILE))
    assert installed(bench) == ()


def test_a_view_leaves_nothing_and_shows_nothing_of_ours(bench):
    bench.build("hosts", Shell("rm -rf /etc; ln -s /nowhere /etc"))
    workbench = bench.workbench
    with View(workbench.host, workbench.store, bench.image().chain_id) as view:
        assert view.read("/etc/hosts") is None
        assert view.names("/etc") == []
        path = view.path
    assert not path.exists()


@pytest.mark.parametrize(
    ("package", "purl", "pinned"),
    [
        (
            FOUND[0],
            "pkg:deb/debian/jq@1:1.6-2.1%2Bdeb12u1?arch=amd64&distro=bookworm",
            "jq=1:1.6-2.1+deb12u1",
        ),
        (FOUND[1], "pkg:npm/%40s/in@2.0.0", "@s/in@2.0.0"),
        (FOUND[4], "pkg:pypi/six-pack@1.0", "Six_Pack==1.0"),
        (FOUND[5], "pkg:pypi/two@2%2Blocal", "two @ https://example.org/two.whl"),
    ],
)
def test_a_package_has_a_url_and_can_be_pinned(package, purl, pinned):
    packageurl = pytest.importorskip("packageurl", reason="the extra `sbom` is not installed")
    assert package.purl == purl
    assert packageurl.PackageURL.from_string(purl).to_string() == purl
    assert package.pinned == pinned


def test_lists_have_exact_versions_and_only_what_came_on_top():
    assert requirements(FOUND) == "Six_Pack==1.0\ntwo @ https://example.org/two.whl\n"
    base = Package("deb", "base", "1")
    assert apt([base], [base, *FOUND]) == "jq=1:1.6-2.1+deb12u1\n"
