// Small helpers over the DOM. Text goes in as text alone: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

export const find = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/** An HTML element with attributes and children (elements or text). */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element likewise. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets text where it is another one, so that nothing is announced or laid out in vain. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute where it is another one; null takes it away. */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Keeps one child of `parent` for each key, in this order: known ones are updated in place, so that
 * focus and selection stay.
 */
export class Keyed {
  constructor(parent, build) {
    this.parent = parent;
    this.build = build;
    this.parts = new Map();
  }

  show(keys, update) {
    const wanted = new Set(keys);
    for (const [key, part] of this.parts) {
      if (!wanted.has(key)) {
        part.element.remove();
        this.parts.delete(key);
      }
    }
    let place = this.parent.firstElementChild;
    for (const key of keys) {
      let part = this.parts.get(key);
      if (!part) {
        part = this.build(key);
        this.parts.set(key, part);
      }
      if (part.element === place) place = place.nextElementSibling;
      else this.parent.insertBefore(part.element, place);
      update(part, key);
    }
  }
}
