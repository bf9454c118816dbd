// Makes the demo's bundled key, verifier contract, recorded proof and snapshots from what `poa demo --out DIR` wrote: `npm run demo -- DIR`.
// After it, `cargo build` bundles the new key and contract.
"use strict";
const fs = require("fs");
const path = require("path");
const { spawnSync } = require("child_process");
const { root, forge } = require("./forge");

const VERIFIER = "artifacts/raw/DemoVerifier.json";
const TEMPLATE = "artifacts/raw/VerifierTemplate.json";
const VECTOR = "test/vectors/proof-demo.json";
const KEY = "../assets/demo/outer.vk";
// What a browser verifies in `browser/`'s tests.
const OUTER = "../browser/test/outer";
// What `poa deploy` gives the generated verifier unless said otherwise.
const GAS_LIMIT = 450000;

const prefixed = (hexadecimal) => `0x${hexadecimal}`;

function vector(proof, statement) {
  if (proof.format !== "poa-evm-proof/2") throw new Error(`evm-proof.json has format ${proof.format}`);
  if (!proof.srs.insecure) throw new Error("the demo's reference string is the insecure one");
  if (JSON.stringify(statement.requests[0].weights) !== JSON.stringify(proof.weights)) throw new Error("proof and statement are of different runs");
  const { commitment, base, adapter, datanet_root, datanet_version, contributors } = statement.index;
  const [c, b, a, r] = [commitment, base, adapter, datanet_root].map(prefixed);
  return {
    name: "demo",
    raw_verifier_artifact: VERIFIER,
    key_digest: prefixed(proof.key_digest),
    gas_limit: GAS_LIMIT,
    index: { commitment: c, base: b, adapter: a, datanet_root: r, datanet_version, contributors },
    public_inputs: proof.public_inputs.map(prefixed),
    weights: proof.weights,
    proof: prefixed(proof.proof),
  };
}

function require_ok(done, what) {
  if (done.status !== 0) throw new Error(`${what} failed`);
}

function main(given) {
  const directory = path.resolve(process.cwd(), given ?? path.join(root, "..", "runs", "demo"));
  const file = (name) => path.join(directory, name);
  const missing = ["evm-proof.json", "evm-statement.json", "outer.vk", "Verifier.sol", "VerifierTemplate.sol"].filter((name) => !fs.existsSync(file(name)));
  if (missing.length > 0) throw new Error(`${directory} lacks ${missing.join(", ")}: run \`poa demo --out ${directory}\` first`);
  const [proof, statement] = ["evm-proof.json", "evm-statement.json"].map((name) => JSON.parse(fs.readFileSync(file(name), "utf8")));
  const made = vector(proof, statement);
  for (const [source, artifact] of [["Verifier.sol", VERIFIER], ["VerifierTemplate.sol", TEMPLATE]]) {
    const compiler = [path.join(__dirname, "compile-verifier.js"), file(source), path.join(root, artifact)];
    require_ok(spawnSync(process.execPath, compiler, { stdio: "inherit" }), `compiling ${source}`);
  }
  fs.copyFileSync(file("outer.vk"), path.join(root, KEY));
  fs.copyFileSync(file("evm-statement.json"), path.join(root, OUTER, "statement.json"));
  fs.copyFileSync(file("evm-proof.json"), path.join(root, OUTER, "proof.json"));
  fs.writeFileSync(path.join(root, VECTOR), JSON.stringify(made, null, 1) + "\n");
  console.error(`wrote ${VERIFIER}, ${TEMPLATE}, ${VECTOR} and assets/demo/outer.vk, key ${proof.key_digest}; testing, which writes the snapshots`);
  require_ok(forge(["test"]), "testing");
}

try {
  main(process.argv[2]);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
