// Compiles a verifier that snark-verifier generated: `node tools/compile-verifier.js Verifier.sol artifacts/raw/Name.json`.
// The generated source fixes solc 0.8.19. The optimizer stays off: with it the compiler runs out of stack slots or, through its
// intermediate representation, makes a contract that always reverts.
"use strict";
const fs = require("fs");
const path = require("path");
const solc = require("solc-0.8.19");

const RUNTIME_LIMIT = 24576;

function compile(source) {
  const input = {
    language: "Solidity",
    sources: { "Verifier.sol": { content: source } },
    settings: {
      optimizer: { enabled: false },
      metadata: { bytecodeHash: "none", appendCBOR: false },
      outputSelection: { "*": { "*": ["evm.bytecode.object", "evm.deployedBytecode.object"] } },
    },
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const failures = (output.errors ?? []).filter((e) => e.severity === "error");
  if (failures.length > 0) throw new Error(failures.map((e) => e.formattedMessage).join("\n"));
  const contracts = Object.entries(output.contracts["Verifier.sol"]);
  if (contracts.length !== 1) throw new Error(`expected one contract, found ${contracts.length}`);
  return contracts[0];
}

function main([from, to]) {
  if (!from || !to) throw new Error("usage: compile-verifier.js <source.sol> <artifact.json>");
  const [contractName, { evm }] = compile(fs.readFileSync(from, "utf8"));
  const runtime = evm.deployedBytecode.object.length / 2;
  if (runtime > RUNTIME_LIMIT) throw new Error(`${contractName} has ${runtime} bytes, over the limit of ${RUNTIME_LIMIT}`);
  const artifact = { contractName, compiler: solc.version(), runtimeBytes: runtime, abi: [], bytecode: "0x" + evm.bytecode.object };
  fs.mkdirSync(path.dirname(path.resolve(to)), { recursive: true });
  fs.writeFileSync(to, JSON.stringify(artifact, null, 1) + "\n");
  console.error(`${contractName}: ${runtime} bytes of at most ${RUNTIME_LIMIT}`);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
