// What a model wrote, as nodes of text. Nothing of it becomes markup: code is set apart, addresses become links that
// show where they lead, and [1] opens its source.

const FENCE = /^```[^\n]*\n([\s\S]*?)(?:^```[ \t]*$|(?![\s\S]))/m;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|(https?:\/\/[^\s<>"'`)\]}*]+)|\[(\d{1,3})\]/g;
// What ends a sentence is no part of an address.
const TRAILING = /[.,;:!?]+$/;

/** Nodes for `text`; `cite(number)` makes what opens a source, or nothing where there is none. */
export function rendered(text, cite = () => null) {
  const nodes = [];
  let rest = text;
  for (let fence; (fence = FENCE.exec(rest)); rest = rest.slice(fence.index + fence[0].length)) {
    nodes.push(...prose(rest.slice(0, fence.index), cite));
    nodes.push(element("pre", {}, element("code", {}, fence[1])));
  }
  return [...nodes, ...prose(rest, cite)];
}

function prose(text, cite) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, code, strong, address, number] = found;
    nodes.push(text.slice(end, found.index));
    end = found.index + whole.length;
    if (code) nodes.push(element("code", {}, code));
    else if (strong) nodes.push(element("strong", {}, strong));
    else if (number) nodes.push(cite(Number(number)) ?? whole);
    else {
      const href = address.replace(TRAILING, "");
      nodes.push(link(href), address.slice(href.length));
    }
  }
  return [...nodes, text.slice(end)].filter((node) => node !== "");
}

function link(address) {
  if (!URL.canParse(address)) return address;
  return element("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, address);
}

/** An element with attributes and children; strings become text. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  node.append(...children);
  return node;
}
