// The gateway's API as the page uses it: a request, its stream of events, and what is said when it fails.

const KEY = "llm-serving.key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** Why a request has no answer, in words for a person. */
export class Failed extends Error {
  constructor(message, { status = 0, requestId = "" } = {}) {
    super(message);
    this.status = status;
    this.requestId = requestId;
  }
}

/** Everything the key may chat with, as cards of /v1/models. */
export async function chatModels() {
  const { data } = await (await ask("/v1/models")).json();
  return data.filter((card) => card.paths.includes("/v1/chat/completions"));
}

/** Send files to a pipeline; a report for each document, failures included. */
export async function upload(pipeline, files) {
  const form = new FormData();
  for (const file of files) form.append("files", file);
  const path = `/v1/rag/${encodeURIComponent(pipeline)}/documents`;
  return (await (await ask(path, { method: "POST", body: form })).json()).documents;
}

/** The whole text of a chunk that an answer cites; null if a search for its beginning does not find it. */
export async function passage(pipeline, citation) {
  const answer = await post(`/v1/rag/${encodeURIComponent(pipeline)}/search`, { query: citation.quote, limit: 20 });
  const { results } = await answer.json();
  return results.find((each) => each.document === citation.document && each.chunk === citation.chunk)?.text ?? null;
}

/** Ask for a chat completion; the response's headers, and its events as they come. */
export async function chat(body, signal) {
  const answer = await post("/v1/chat/completions", body, signal);
  return { headers: answer.headers, events: events(answer) };
}

function post(path, body, signal) {
  return ask(path, {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal,
  });
}

async function ask(path, { headers = {}, ...options } = {}) {
  const credential = key.get() ? { authorization: `Bearer ${key.get()}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers, ...credential } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed("The gateway cannot be reached. Is it running, and are you online?");
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer) {
  const { status } = answer;
  const body = await answer.json().catch(() => null);
  let message = body?.error?.message ?? `The gateway answered with status ${status}.`;
  const after = Number(answer.headers.get("retry-after"));
  if (after > 0) message += ` Try again in ${after} s.`;
  return new Failed(message, { status, requestId: answer.headers.get("x-request-id") ?? "" });
}

/** The JSON events of a stream. It must end with [DONE]: a connection that closes before broke off. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const requestId = answer.headers.get("x-request-id") ?? "";
  let rest = "";
  let complete = false;
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done && !complete) throw new Failed("The answer broke off.", { requestId });
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") {
          complete = true;
          continue;
        }
        const event = JSON.parse(data);
        if (event.error) throw new Failed(event.error.message ?? "The answer broke off.", { requestId });
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof TypeError) throw new Failed("The connection broke before the answer was complete.", { requestId });
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}
