// A service of its own for a test, and what every test needs of it.

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
export const program = process.env.POA ?? join(root, "target/release/poa");
const browsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
export const chromium = browsers.find((path) => path && existsSync(path));

/** Starts `poa serve --demo` on a port of its own; `stop` ends it and removes its data. */
export async function serve() {
  const data = await mkdtemp(join(tmpdir(), "poa-browser-"));
  const child = spawn(program, ["serve", "--demo", "--json", "--listen", "127.0.0.1:0", "--data", data], { stdio: ["ignore", "pipe", "ignore"] });
  const [line] = await once(createInterface({ input: child.stdout }), "line");
  const { address, admin_key: key } = JSON.parse(line);
  const url = `http://${address}`;
  const call = async (method, path, body) => {
    const headers = { authorization: `Bearer ${key}` };
    const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
    return { status: answer.status, body: await answer.json() };
  };
  const stop = async () => {
    child.kill("SIGKILL");
    await rm(data, { recursive: true, force: true });
  };
  return { url, key, call, stop };
}
