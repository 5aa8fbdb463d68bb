// The little that this page needs to build its elements.

const svg = 'http://www.w3.org/2000/svg';
const drawn = new Set(['g', 'path', 'circle', 'text', 'tspan', 'rect', 'title']);

// el makes an element. Attributes that begin with on are listeners; null is left out.
export function el(name, attributes = {}, ...children) {
  const node = drawn.has(name) ? document.createElementNS(svg, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((c) => c !== null && c !== ''));
  return node;
}

// set changes an attribute, or takes it away, only if it differs: what does not change is
// not announced again.
export function set(node, key, value) {
  if (value === null || value === false) { if (node.hasAttribute(key)) node.removeAttribute(key); return; }
  const text = value === true ? '' : String(value);
  if (node.getAttribute(key) !== text) node.setAttribute(key, text);
}

// say changes the text of a node only if it differs.
export function say(node, text) { if (node.textContent !== text) node.textContent = text; }
