// The page: which model is asked, with which key, what was said so far.

import { Answer } from "./answer.js";
import { Failed, chat, chatModels, key, upload } from "./api.js";
import { element } from "./text.js";

const KINDS = { generate: "Models", pipeline: "Pipelines", agent: "Agents" };

const at = (id) => document.getElementById(id);
const cards = new Map();
/** What was said, as the API has it. */
let messages = [];
/** Ends the answer that is being written; null while there is none. */
let running = null;

const chosen = () => cards.get(at("model").value);

// Models and the key

async function listModels() {
  let listed;
  try {
    listed = await chatModels();
  } catch (failure) {
    if (failure.status === 401) askForKey(key.get() ? failure.message : "");
    else notice(told(failure));
    return;
  }
  const before = at("model").value;
  cards.clear();
  for (const card of listed) cards.set(card.id, card);
  const groups = Object.entries(KINDS).map(([task, kind]) => {
    const options = listed.filter((card) => card.task === task).map((card) => element("option", {}, card.id));
    return options.length ? element("optgroup", { label: kind }, ...options) : "";
  });
  at("model").replaceChildren(...groups.filter(Boolean));
  at("model").disabled = !listed.length;
  if (cards.has(before)) at("model").value = before;
  if (!listed.length) at("model").append(element("option", { value: "" }, "No models for this key"));
  follow();
  at("question").focus();
}

/** Say something where there is no conversation yet. */
function notice(text) {
  at("empty").textContent = text;
  say(text);
}

/** Show what the chosen model can do. */
function follow() {
  at("documents").hidden = chosen()?.task !== "pipeline";
}

function askForKey(problem) {
  at("key-problem").textContent = problem;
  at("key-problem").hidden = !problem;
  at("key").value = key.get();
  if (!at("key-dialog").open) at("key-dialog").showModal();
  at("key").select();
}

at("model").addEventListener("change", follow);
at("change-key").addEventListener("click", () => askForKey(""));
at("cancel-key").addEventListener("click", () => at("key-dialog").close());
at("key-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  key.set(at("key").value.trim());
  at("key-dialog").close();
  listModels();
});

// The conversation

async function send(question) {
  const card = chosen();
  const before = messages;
  const conversation = at("conversation");
  const follows = () => conversation.scrollHeight - conversation.scrollTop - conversation.clientHeight < 80;
  let atEnd = true;
  const answer = new Answer(card, () => atEnd && (conversation.scrollTop = conversation.scrollHeight));
  const watch = () => (atEnd = follows());
  conversation.addEventListener("scroll", watch);
  at("empty").hidden = true;
  conversation.append(element("article", { class: "question" }, question), answer.node);
  answer.grown();

  const asked = { role: "user", content: question };
  const body = { model: card.id, messages: [...before, asked], stream: true, stream_options: { include_usage: true } };
  if (card.task === "agent") body.include_steps = true;
  busy(new AbortController());
  let failure = null;
  try {
    const { headers, events } = await chat(body, running.signal);
    answer.begin(headers);
    for await (const event of events) answer.take(event);
  } catch (error) {
    failure = error;
    if (!(error instanceof Failed) && error.name !== "AbortError") console.error(error);
  }
  conversation.removeEventListener("scroll", watch);
  answer.end(failure && told(failure));
  busy(null);
  if (answer.text) before.push(asked, { role: "assistant", content: answer.text });
  // What was not answered at all can be sent again, unless another conversation has begun.
  else if (failure && before === messages && !at("question").value) at("question").value = question;
  say(failure ? told(failure) : "The answer is complete.");
  if (failure?.status === 401) askForKey(failure.message);
}

function told(failure) {
  if (failure.name === "AbortError") return "Stopped.";
  if (!(failure instanceof Failed)) return "The answer cannot be read.";
  const traced = failure.status >= 500 || !failure.status;
  return failure.message + (traced && failure.requestId ? ` (request ${failure.requestId})` : "");
}

function busy(controller) {
  // A button that goes takes the focus with it; who reads elsewhere keeps it.
  const lost = [at("send"), at("stop"), document.body].includes(document.activeElement);
  running = controller;
  at("send").hidden = Boolean(controller);
  at("stop").hidden = !controller;
  if (lost) at("question").focus();
}

/** For those who do not see the page change. */
function say(text) {
  at("status").textContent = text;
}

at("composer").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const question = at("question").value.trim();
  if (running || !question) return;
  if (!chosen()) return void listModels();
  at("question").value = "";
  send(question);
});
at("question").addEventListener("keydown", (pressed) => {
  if (pressed.key !== "Enter" || pressed.shiftKey || pressed.isComposing) return;
  pressed.preventDefault();
  at("composer").requestSubmit();
});
at("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (pressed) => {
  if (pressed.key === "Escape" && !at("key-dialog").open) running?.abort();
});
at("new").addEventListener("click", () => {
  running?.abort();
  messages = [];
  for (const said of [...at("conversation").querySelectorAll("article")]) said.remove();
  at("uploads").replaceChildren();
  at("empty").hidden = false;
  at("question").focus();
});

// Documents

at("files").addEventListener("change", async () => {
  const files = [...at("files").files];
  at("files").value = "";
  const names = files.map((file) => file.name).join(", ");
  const line = element("li", {}, `Uploading ${names} …`);
  at("uploads").replaceChildren(line);
  try {
    const reports = await upload(chosen().id, files);
    line.replaceWith(...reports.map((report) => report.error
      ? element("li", { class: "failure" }, `${report.id}: ${report.error.message}`)
      : element("li", {}, `${report.id}: ${report.status}, ${report.chunks} ${report.chunks === 1 ? "chunk" : "chunks"}`)));
  } catch (failure) {
    line.replaceWith(element("li", { class: "failure" }, `${names}: ${told(failure)}`));
  }
  say(at("uploads").textContent);
});

listModels();
