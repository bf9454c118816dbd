// Writes artifacts/<Contract>.json (abi and creation bytecode) and snapshots/sizes.json from a fresh compilation.
// With --check it writes nothing and fails if anything in the tree differs.
"use strict";
const fs = require("fs");
const os = require("os");
const path = require("path");
const { root, forge } = require("./forge");

const CONTRACTS = [
  "AttributionSettlement",
  "AttributionVerifier",
  "DatanetRegistry",
  "ModelRegistry",
  "OpenToken",
  "PoaGovernor",
  "StakingPool",
  "Timelock",
];
const RUNTIME_LIMIT = 24576;

function compile() {
  const out = fs.mkdtempSync(path.join(os.tmpdir(), "poa-artifacts-"));
  try {
    const done = forge(["build", "src", "--force", "--out", out, "--cache-path", path.join(out, "cache")], { stdio: ["ignore", 2, 2] });
    if (done.status !== 0) throw new Error("compilation failed");
    const read = (name) => JSON.parse(fs.readFileSync(path.join(out, `${name}.sol`, `${name}.json`), "utf8"));
    return Object.fromEntries(CONTRACTS.map((name) => [name, read(name)]));
  } finally {
    fs.rmSync(out, { recursive: true });
  }
}

function bytes(code) {
  return (code.length - 2) / 2;
}

function files(compiled) {
  const wanted = new Map();
  const sizes = {};
  for (const [name, { abi, bytecode, deployedBytecode }] of Object.entries(compiled)) {
    if (/__\$/.test(bytecode.object)) throw new Error(`${name} needs linking`);
    const runtime = bytes(deployedBytecode.object);
    if (runtime > RUNTIME_LIMIT) throw new Error(`${name} has ${runtime} bytes, over the limit of ${RUNTIME_LIMIT}`);
    sizes[name] = { runtime, creation: bytes(bytecode.object) };
    const trimmed = { contractName: name, abi, bytecode: bytecode.object };
    wanted.set(path.join("artifacts", `${name}.json`), JSON.stringify(trimmed, null, 1) + "\n");
  }
  wanted.set(path.join("snapshots", "sizes.json"), JSON.stringify(sizes, null, 2) + "\n");
  return wanted;
}

function main() {
  const check = process.argv.includes("--check");
  const different = [];
  for (const [file, text] of files(compile())) {
    const full = path.join(root, file);
    if (fs.existsSync(full) && fs.readFileSync(full, "utf8") === text) continue;
    different.push(file);
    if (check) continue;
    fs.mkdirSync(path.dirname(full), { recursive: true });
    fs.writeFileSync(full, text);
  }
  if (check && different.length > 0) {
    console.error(`differs from a fresh compilation: ${different.join(", ")}; run \`npm run artifacts\` and explain the change`);
    process.exit(1);
  }
  console.error(different.length === 0 ? "artifacts and sizes equal a fresh compilation" : `wrote ${different.join(", ")}`);
}

main();
