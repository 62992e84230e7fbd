// One answer on the page: its text as it comes, what it rests on, how long it took.

import { passage } from "./api.js";
import { element, rendered } from "./text.js";

// A citation quotes so many characters of its passage (QUOTE_CHARS of the RAG pipelines).
const QUOTE_CHARS = 200;

export class Answer {
  /** `card` is that of the model, `grown` is called after the answer took more room. */
  constructor(card, grown) {
    this.text = "";
    this.card = card;
    this.grown = grown;
    this.began = performance.now();
    this.usage = null;
    this.sources = new Map();
    this.thoughts = element("div", { class: "text" });
    this.thinking = element("details", { hidden: "" }, element("summary", {}, "Thoughts"), this.thoughts);
    this.steps = element("ol", { class: "steps", hidden: "", "aria-label": "Steps" });
    this.body = element("div", { class: "text" });
    this.cited = element("section", { class: "sources", hidden: "", "aria-label": "Sources" });
    this.facts = element("ul", { class: "facts", "aria-label": "About this answer" });
    this.node = element("article", { class: "answer", "aria-busy": "true" },
      element("h2", {}, card.id), this.thinking, this.steps, this.body, this.cited, this.facts);
  }

  /** Show what the response's headers say. */
  begin(headers) {
    const version = headers.get("x-llm-version");
    if (version && version !== this.card.id) this.#fact(`answered by ${version}`);
    this.#degraded(headers.get("x-rag-degraded"));
  }

  /** Take in an event of the stream. */
  take(event) {
    this.usage = event.usage ?? this.usage;
    if (event.step) this.#step(event.step);
    if (event.degraded) this.#degraded(event.degraded.join(","));
    if (event.end_reason && event.end_reason !== "answered") this.#fact(`ended: ${event.end_reason}`, "warning");
    else if (event.choices?.[0]?.finish_reason === "length") this.#fact("cut at the limit of tokens", "warning");
    const delta = event.choices?.[0]?.delta ?? {};
    const thought = delta.reasoning ?? delta.reasoning_content;
    if (thought || delta.content) this.firstToken ??= performance.now();
    if (thought) {
      this.thinking.hidden = false;
      this.thoughts.append(thought);
    }
    if (delta.content) {
      this.text += delta.content;
      this.#soon();
    }
    for (const { file_citation: citation } of delta.annotations ?? []) this.#source(citation);
  }

  /** Nothing more comes; `failure` says why if that is not as it should be. */
  end(failure = null) {
    this.ended = performance.now();
    this.#show();
    this.node.removeAttribute("aria-busy");
    if (this.firstToken) this.#fact(`first token ${seconds(this.firstToken - this.began)}`);
    this.#fact(`total ${seconds(this.ended - this.began)}`);
    const tokens = this.usage?.completion_tokens;
    const writing = (this.ended - this.firstToken) / 1000;
    if (tokens) this.#fact(tokens === 1 ? "1 token" : `${tokens} tokens`);
    if (tokens > 1 && writing > 0) this.#fact(`${((tokens - 1) / writing).toFixed(tokens / writing < 10 ? 1 : 0)} tokens/s`);
    if (failure) this.node.append(element("p", { class: "failure", role: "alert" }, failure));
    this.grown();
  }

  // Once a frame, however fast tokens come; at the end a hidden tab catches up.
  #soon() {
    this.frame ??= requestAnimationFrame(() => this.#show());
  }

  #show() {
    this.frame = null;
    this.body.replaceChildren(...rendered(this.text, (number) => this.#citation(number)));
    this.grown();
  }

  #citation(number) {
    const source = this.sources.get(number);
    if (!source) return null;
    const button = element("button", { type: "button", class: "citation", "aria-label": `Source ${number}` }, `${number}`);
    button.addEventListener("click", () => {
      source.open = true;
      source.firstChild.focus();
      source.scrollIntoView({ block: "nearest" });
    });
    return button;
  }

  #source(citation) {
    const where = [citation.document, citation.page && `page ${citation.page}`, citation.heading].filter(Boolean).join(" · ");
    const cut = citation.quote.length >= QUOTE_CHARS;
    const quote = element("blockquote", {}, citation.quote, cut ? "…" : "");
    const score = citation.score === null ? "found by its words" : `similarity ${citation.score.toFixed(2)}`;
    const source = element("details", { class: "source" },
      element("summary", {}, element("span", { class: "number" }, `${citation.index}`), where), quote,
      element("p", {}, `${citation.document}, chunk ${citation.chunk}, ${score}`));
    if (cut && this.card.task === "pipeline") {
      source.addEventListener("toggle", async () => {
        // The quote says enough where the whole cannot be had.
        const whole = await passage(this.card.id, citation).catch(() => null);
        if (whole) quote.replaceChildren(whole);
      }, { once: true });
    }
    this.sources.set(citation.index, source);
    this.cited.hidden = false;
    this.cited.append(source);
  }

  #step(step) {
    // A step of a graph has a name, and need not have called a tool.
    const named = [step.step, step.tool ?? step.model, step.failed && "failed", seconds(step.duration_s * 1000)];
    const given = step.arguments ? [element("pre", {}, JSON.stringify(step.arguments))] : [];
    const outcome = element("details", { class: "step" },
      element("summary", {}, named.filter(Boolean).join(" · ")), ...given, element("pre", {}, step.result));
    this.steps.hidden = false;
    this.steps.append(element("li", {}, outcome));
    this.grown();
  }

  #degraded(parts) {
    if (!parts || this.degraded) return;
    this.degraded = true;
    this.#fact(`degraded, without ${parts.replaceAll(",", ", ")}`, "warning");
  }

  #fact(text, kind = "") {
    this.facts.append(element("li", { class: kind }, text));
  }
}

function seconds(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}
