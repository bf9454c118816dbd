// What a page says of work under way is kept up to date, and an answer is shown while it grows. Without scripts pages read themselves again.

const EVERY = 1000;
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Puts a part's new content in the place of the old, so that what announces it stays, and so does the focus. */
function replace(part, next) {
  if (part.innerHTML === next.innerHTML) return;
  const focused = part.contains(document.activeElement) ? document.activeElement.textContent : null;
  part.replaceChildren(...document.importNode(next, true).childNodes);
  if (focused !== null) [...part.querySelectorAll("a, button, summary")].find((e) => e.textContent === focused)?.focus();
}

/** Reads the page again and again until none of its parts is waiting for anything. */
async function follow() {
  for (;;) {
    await pause(EVERY);
    if (document.hidden) continue;
    let answer;
    try {
      answer = await fetch(location.href);
    } catch {
      continue;
    }
    if (answer.redirected) return location.assign(answer.url);
    if (!answer.ok) continue;
    const read = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const next = read.getElementById(part.id);
      if (next) replace(part, next);
    }
    if (!read.querySelector("[data-waits]")) return;
  }
}

/** Pieces of a stream of events. */
async function* events(body) {
  let rest = "";
  for await (const text of pieces(body.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
  }
}

async function* pieces(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** Asks, shows the answer as it comes, and goes to its page. */
async function ask(form, shown) {
  const { prompt, text, problem } = Object.fromEntries([...shown.querySelectorAll("[data-is]")].map((e) => [e.dataset.is, e]));
  const button = form.querySelector("button");
  const fail = (message) => {
    problem.textContent = message;
    button.disabled = false;
  };
  const body = new URLSearchParams(new FormData(form));
  [prompt.textContent, text.textContent, problem.textContent] = [body.get("prompt").trim(), "", ""];
  [shown.hidden, button.disabled] = [false, true];
  try {
    const answer = await fetch("/ask/stream", { method: "POST", body });
    if (answer.redirected) return location.assign(answer.url);
    if (!answer.ok) return fail((await answer.json()).error.message);
    let request = null;
    for await (const event of events(answer.body)) {
      if (event.error) return fail(event.error.message);
      text.textContent += event.choices[0]?.delta?.content ?? "";
      request = event.poa?.request ?? request;
    }
    if (request === null) return fail("The answer broke off.");
    button.disabled = false;
    location.assign(`/requests/${request}`);
  } catch (error) {
    fail(`The answer broke off: ${error.message}`);
  }
}

if (document.querySelector("[data-waits]")) follow();
const form = document.querySelector("form[data-streams]");
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  ask(form, document.getElementById("answer"));
});
