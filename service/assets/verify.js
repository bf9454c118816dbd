// A proof is checked by this browser: proof and statement are fetched, or chosen, and read by the verifier, compiled to WebAssembly, in a worker.
// Nothing here says that a proof holds but what the verifier answered.

const verdict = document.getElementById("verdict");
const facts = document.getElementById("facts");
const button = document.getElementById("check");

function say(text, kind) {
  verdict.textContent = text;
  verdict.className = kind;
}

/** The verifier's answer to `files`: statement and proof, accepted registrations, a key; a worker that breaks off is none. */
function check(files) {
  return new Promise((resolve, reject) => {
    const worker = new Worker("/verify-worker.js", { type: "module" });
    const end = (done, value) => {
      worker.terminate();
      done(value);
    };
    worker.onmessage = ({ data }) => (data.broken ? end(reject, new Error(data.broken)) : end(resolve, data));
    worker.onerror = (event) => end(reject, new Error(event.message || "the verifier can't be started"));
    worker.postMessage(files, [files.statement, files.proof]);
  });
}

function fact(name, value) {
  const [term, of] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  of.textContent = value;
  facts.append(term, of);
}

function tell({ security_bits: bits, key, insecure_srs: insecure, states }) {
  if (key) {
    fact("Verifying key", key);
    fact("Reference string", insecure ? "its secret is published: anyone can forge proofs over it, for trials only" : "not marked insecure");
  } else {
    fact("Security", `${bits.toFixed(1)} bits`);
  }
  fact("Statement’s digest", states.digest);
  fact("Relation’s digest", states.relation);
  if (states.registration) {
    fact("Given", `registration ${states.registration}, which wasn’t verified here: poa registration verify does that`);
  }
  fact("Protocol", `version ${states.protocol}, profile ${states.profile}`);
  for (const [name, pin] of [["Base", states.base], ["Adapter", states.adapter], ["Index", states.index], ["Datanet’s root", states.datanet_root]]) {
    if (pin) fact(name, pin);
  }
  for (const { id, shares } of states.requests) {
    fact("Request", id);
    fact("Rests on", shares.map(({ contributor, bps }) => `${contributor} ${(bps / 100).toFixed(2)} %`).join(", ") || "nobody’s samples");
  }
}

/** Checks, and says what came of it; `request` is the one that the page is about. */
async function run(read, request) {
  button.disabled = true;
  facts.replaceChildren();
  say("Checking …", "");
  try {
    const files = await read();
    const begun = performance.now();
    const answer = await check(files);
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    if (answer.valid !== true) {
      say(`Refused: ${answer.problem}`, "problem");
    } else if (request && !answer.states.requests.some(({ id }) => id === request)) {
      say("Refused: the proof holds, but it is another request’s.", "problem");
    } else {
      const given = answer.states.registration ? ", given the registration that it relies on" : "";
      const trial = answer.insecure_srs ? ", under a key that anyone can forge proofs for" : "";
      say(`Verified by this browser in ${seconds} s${given}${trial}.`, "good");
      tell(answer);
    }
  } catch (error) {
    say(`Not checked: ${error.message}`, "problem");
  }
  button.disabled = false;
}

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok || answer.redirected) throw new Error(`${path} can’t be read`);
  return answer.arrayBuffer();
}

/** Files by name, read at once. */
async function all(named) {
  const read = Object.entries(named).map(async ([name, file]) => [name, await file]);
  return Object.fromEntries(await Promise.all(read));
}

const { request, outer } = document.getElementById("verify").dataset;
if (request) {
  const from = (name) => fetched(`/requests/${request}/${name}`);
  const native = () => all({ statement: from("statement.json"), proof: from("proof.bin"), accepted: from("accepted.json") });
  const settled = () => all({ statement: from("outer-statement.json"), proof: from("outer-proof.json"), key: from("outer.vk") });
  const start = () => (outer ? run(settled, outer) : run(native, request));
  button.addEventListener("click", start);
  start();
} else {
  button.addEventListener("click", () => {
    const names = ["statement", "proof", "accepted", "key"];
    const chosen = Object.fromEntries(names.map((name) => [name, document.getElementById(name).files[0]]));
    if (!chosen.statement || !chosen.proof) return say("Choose statement and proof.", "problem");
    if (chosen.accepted && chosen.key) return say("A key is an outer proof’s, which relies on no registration: leave one of them out.", "problem");
    if (chosen.proof.name.endsWith(".json") && !chosen.key) return say("That is an outer proof. Choose its verifying key, too.", "problem");
    const given = Object.entries(chosen).filter(([, file]) => file);
    run(() => all(Object.fromEntries(given.map(([name, file]) => [name, file.arrayBuffer()]))), null);
  });
}
button.hidden = false;
