// Charts.

/** An element of a picture. */
export function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Round steps that cover the numbers, three to six of them. */
export function ticks(numbers) {
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const power = 10 ** Math.floor(Math.log10((high - low) / 3));
  const step = power * [1, 2, 5, 10].find((factor) => 5 * factor * power >= high - low);
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}
