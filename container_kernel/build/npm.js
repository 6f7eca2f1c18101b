// What a step of %npm does beside npm: which packages there are, their tarballs, where they go.
//
//   node npm.js list|fetch|tree|place TOLD ARCHIVES
//
// TOLD/npm.json is the list of packages, as the lock has them; ARCHIVES holds tarballs, each under
// its SHA-512. A bundled package is part of another's tarball and has no line of its own.
"use strict";
const { spawnSync } = require("child_process");
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");

const [, , command, told, archives] = process.argv;
const MOST_LOOKED_FOR = 3;
const INSIDE = "node_modules/";
const WANTED = path.join(told, "npm.json");

const read = (file) => JSON.parse(fs.readFileSync(file, "utf8"));
const write = (file, value) => fs.writeFileSync(file, JSON.stringify(value));
const npm = (words, where, log = "inherit") =>
  spawnSync("npm", words, { cwd: where, stdio: ["ignore", log, "inherit"] }).status === 0;

function fail(message, status = 1) {
  console.error(message);
  process.exit(status);
}

// What npm has just put into a project: so nothing that is for other platforms.
function list() {
  const hidden = path.join(INSIDE, ".package-lock.json");
  if (fs.existsSync("node_modules") && !fs.existsSync(hidden)) fail("%npm needs npm 7 or newer");
  const found = fs.existsSync(hidden) ? read(hidden).packages : {};
  const own = Object.entries(found).filter(([, one]) => !one.inBundle);
  write(WANTED, own.map(([place, one]) => input(place.slice(INSIDE.length), one)));
}

function input(place, one) {
  const name = one.name || place.split(INSIDE).pop();
  const strong = (one.integrity || "").split(" ").find((part) => part.startsWith("sha512-"));
  const url = elsewhere(name, one);
  return {
    name,
    version: one.version,
    path: place,
    digest: strong || null,
    ...(url && { url }),
    ...(one.optional && { optional: true }),
  };
}

// Where a package is from, if not from a registry: a registry is whatever this site has for one.
function elsewhere(name, { version, resolved }) {
  if (!resolved) return undefined;
  if (resolved.startsWith("file:")) return `file:${path.resolve(resolved.slice(5))}`;
  const file = `/${name}/-/${name.split("/").pop()}-${version}.tgz`;
  return decodeURIComponent(resolved.split(/[?#]/)[0]).endsWith(file) ? undefined : resolved;
}

const tarball = (digest) =>
  path.join(archives, `${Buffer.from(digest.slice(7), "base64").toString("hex")}.tgz`);

function fetch() {
  const inputs = read(WANTED);
  const missing = () => inputs.filter((one) => !one.digest || !fs.existsSync(tarball(one.digest)));
  const known = missing().filter((one) => one.digest);
  if (known.length) pack(known, "ignore");
  const gone = [];
  for (const one of missing()) {
    if (one.digest && fs.existsSync(tarball(one.digest))) continue; // it is there twice
    const label = `${one.name}@${one.version}`;
    if (gone.length >= MOST_LOOKED_FOR) gone.push(label);
    if (gone.length >= MOST_LOOKED_FOR) continue;
    const [digest] = pack([one], "inherit");
    if (digest === undefined) gone.push(label);
    else if (!one.digest) one.digest = digest;
    else if (digest !== one.digest)
      fail(`hash mismatch of ${label}\n  locked ${one.digest}\n  found  ${digest}`);
  }
  if (gone.length) {
    fs.writeFileSync(path.join(told, "gone"), gone.join("\n"));
    fail(`cannot fetch ${gone.join(", ")}`, 3);
  }
  write(WANTED, inputs);
}

// Have npm bring the tarballs, put each under its name, and tell what came.
function pack(inputs, log) {
  const folder = fs.mkdtempSync("pack-");
  const specs = inputs.map((one) => one.url || `${one.name}@${one.version}`);
  const words = ["pack", "--pack-destination", ".", "--", ...new Set(specs)];
  spawnSync("npm", words, { cwd: folder, stdio: ["ignore", "ignore", log] });
  return fs.readdirSync(folder).map((name) => {
    const hash = crypto.createHash("sha512").update(fs.readFileSync(path.join(folder, name)));
    const digest = `sha512-${hash.digest("base64")}`;
    fs.renameSync(path.join(folder, name), tarball(digest));
    return digest;
  });
}

// A project of exactly these packages at exactly these places, for `npm ci`.
function tree() {
  const packages = { "": { dependencies: {} } };
  for (const one of read(WANTED).sort((a, b) => (a.path < b.path ? -1 : 1))) {
    const parts = one.path.split(`/${INSIDE}`);
    const last = parts.pop();
    packages[INSIDE + one.path] = {
      name: one.name,
      version: one.version,
      resolved: `file:${tarball(one.digest)}`,
      integrity: one.digest,
      dependencies: {},
    };
    const above = parts.length ? INSIDE + parts.join(`/${INSIDE}`) : "";
    packages[above].dependencies[last] = "*";
  }
  write("package.json", packages[""]);
  write("package-lock.json", { lockfileVersion: 3, requires: true, packages });
}

// Put them where `npm install --global` does; npm makes the links and runs the scripts.
function place() {
  const root = String(spawnSync("npm", ["root", "--global"]).stdout).trim();
  const inputs = read(WANTED);
  for (const { path: folder } of inputs.filter((one) => !one.path.includes(`/${INSIDE}`))) {
    const target = path.join(root, folder);
    if (fs.existsSync(target)) npm(["uninstall", "--global", folder], ".", "ignore");
    fs.mkdirSync(path.dirname(target), { recursive: true });
    const moved = spawnSync("mv", [path.join(INSIDE, folder), target], { stdio: "inherit" });
    if (moved.status !== 0) process.exit(1);
  }
  const lost = (one) => !fs.existsSync(path.join(root, one.path));
  const rebuild = (some) => npm(["rebuild", "--global", ...some.map((o) => path.join(root, o.path))]);
  const fragile = inputs.filter((one) => one.optional && hasScript(path.join(root, one.path)));
  for (const one of fragile)
    if (!lost(one) && !rebuild([one])) fs.rmSync(path.join(root, one.path), { recursive: true });
  const steady = inputs.filter((one) => !fragile.includes(one) && !lost(one));
  if (steady.length && !rebuild(steady)) process.exit(1);
  write(WANTED, inputs.filter((one) => !lost(one)));
}

function hasScript(folder) {
  if (!fs.existsSync(folder)) return false;
  const { scripts = {} } = read(path.join(folder, "package.json"));
  const named = ["preinstall", "install", "postinstall"].some((name) => scripts[name]);
  return named || fs.existsSync(path.join(folder, "binding.gyp"));
}

({ list, fetch, tree, place })[command]();
