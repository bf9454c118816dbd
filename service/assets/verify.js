// A proof is checked by this browser: proof and statement are fetched, or chosen, and read by the verifier, compiled to WebAssembly, in a worker.
// Nothing here says that a proof holds but what the verifier answered.

const verdict = document.getElementById("verdict");
const facts = document.getElementById("facts");
const button = document.getElementById("check");

function say(text, kind) {
  verdict.textContent = text;
  verdict.className = kind;
}

/** The verifier's answer; a worker that breaks off is none. */
function check(statement, proof, accepted) {
  return new Promise((resolve, reject) => {
    const worker = new Worker("/verify-worker.js", { type: "module" });
    const end = (done, value) => {
      worker.terminate();
      done(value);
    };
    worker.onmessage = ({ data }) => (data.broken ? end(reject, new Error(data.broken)) : end(resolve, data));
    worker.onerror = (event) => end(reject, new Error(event.message || "the verifier can't be started"));
    worker.postMessage({ statement, proof, accepted }, [statement, proof]);
  });
}

function fact(name, value) {
  const [term, of] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  of.textContent = value;
  facts.append(term, of);
}

function tell({ security_bits: bits, states }) {
  fact("Security", `${bits.toFixed(1)} bits`);
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
    const [statement, proof, accepted] = await read();
    const begun = performance.now();
    const answer = await check(statement, proof, accepted);
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    if (answer.valid !== true) {
      say(`Refused: ${answer.problem}`, "problem");
    } else if (request && !answer.states.requests.some(({ id }) => id === request)) {
      say("Refused: the proof holds, but it is another request’s.", "problem");
    } else {
      const given = answer.states.registration ? ", given the registration that it relies on" : "";
      say(`Verified by this browser in ${seconds} s${given}.`, "good");
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

const { request } = document.getElementById("verify").dataset;
if (request) {
  const read = () => Promise.all(["statement.json", "proof.bin", "accepted.json"].map((name) => fetched(`/requests/${request}/${name}`)));
  button.addEventListener("click", () => run(read, request));
  run(read, request);
} else {
  button.addEventListener("click", () => {
    const chosen = ["statement", "proof"].map((id) => document.getElementById(id).files[0]);
    if (chosen.includes(undefined)) return say("Choose statement and proof.", "problem");
    const all = [...chosen, ...document.getElementById("accepted").files];
    run(() => Promise.all(all.map((file) => file.arrayBuffer())), null);
  });
}
button.hidden = false;
