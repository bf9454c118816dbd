// Runs the verifier on what it's sent, once, and sends its verdict back.

const [STATEMENT, PROOF, ACCEPTED, KEY] = [0, 1, 2, 3];

onmessage = async ({ data }) => {
  try {
    const { instance } = await WebAssembly.instantiateStreaming(fetch("/verifier.wasm"), {});
    const { memory, input, verify, verdict } = instance.exports;
    const put = (which, bytes) => {
      const at = input(which, bytes.byteLength);
      if (at === 0) throw new Error("the file is too large");
      new Uint8Array(memory.buffer, at, bytes.byteLength).set(new Uint8Array(bytes));
    };
    put(STATEMENT, data.statement);
    put(PROOF, data.proof);
    if (data.accepted) put(ACCEPTED, data.accepted);
    if (data.key) put(KEY, data.key);
    const length = verify();
    postMessage(JSON.parse(new TextDecoder().decode(new Uint8Array(memory.buffer, verdict(), length))));
  } catch (error) {
    postMessage({ broken: `the verifier broke off: ${error.message}` });
  }
};
