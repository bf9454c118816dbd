// Runs the forge that npm installed for this platform: `node tools/forge.js test`.
"use strict";
const { spawnSync } = require("child_process");
const path = require("path");

const root = path.resolve(__dirname, "..");

function binary(tool) {
  const cpu = { x64: "amd64", arm64: "arm64" }[process.arch] ?? process.arch;
  const folder = `@foundry-rs/${tool}-${process.platform}-${cpu}`;
  return path.join(root, "node_modules", folder, "bin", tool);
}

function forge(args, options = {}) {
  const done = spawnSync(binary("forge"), args, { cwd: root, stdio: "inherit", ...options });
  if (done.error) throw new Error(`forge doesn't start (${done.error.message}); run \`npm ci --ignore-scripts\` in contracts/ first`);
  return done;
}

module.exports = { root, forge };

if (require.main === module) process.exit(forge(process.argv.slice(2)).status ?? 1);
