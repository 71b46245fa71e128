// How the gradient link says what it shows: sentences, and the chain of tensors.
import { element } from "../core/dom.js";
import { short, two } from "../core/numbers.js";

export const GUMBEL = "Gumbel-softmax";

/** What is to be seen at this place. @param {number[]} noisy the gradients with each seed's noise */
export function say(link, gradient, finite, noisy, [before, at, after], { weights, choices }) {
  const width = short(weights[after] - weights[before]);
  const token =
    choices[before] === choices[after]
      ? `The choice is token ${choices[at]}, here and a step to each side: the loss is flat.`
      : `The choice changes here from token ${choices[before]} to token ${choices[after]}. The finite difference is the ` +
        `jump divided by ${width}, the distance taken; over half the distance it is twice as large.`;
  if (link === "argmax") return `${token} Autograd has nothing to report: weight.grad stays None.`;
  if (link === "straight-through")
    return `${token} Autograd reports what a softmax would pass back, which is the slope of another curve.`;
  const agree = Math.abs(gradient - finite) < 0.02;
  const both = agree
    ? "Autograd and the finite difference agree: this is the slope of the curve"
    : `Autograd has the slope at this point, the finite difference the mean over a distance of ${width}`;
  if (link !== GUMBEL)
    return `${both}. But what the second step reads is a mixture of all tokens, and not one of them.`;
  return (
    `${both}, with this noise held still. The noise of the ${noisy.length} seeds gives gradients from ` +
    `${two(Math.min(...noisy))} to ${two(Math.max(...noisy))} here, and training draws new noise at each step.`
  );
}

/** The tensors from the weight to the loss, and how far up the gradient comes. */
export function drawChain(tensors, curve, at) {
  return tensors.map(([name, code, dtype, needs, operation, reached], number) => {
    const gradient = name === "loss" ? 1 : reached && curve[name][at];
    const size = name === "weight" || name === "loss" ? "gradient" : "‖gradient‖";
    const cut = !needs && tensors[number - 1][3]; // the first that autograd does not follow
    const facts = [
      dtype,
      `requires_grad=${needs ? "True" : "False"}`,
      operation ?? (needs ? "a leaf" : "grad_fn=None"),
    ];
    return element(
      "li",
      { class: reached ? "gradient-link-reached" : null },
      element("strong", {}, name),
      element(
        "span",
        { class: "gradient-link-arrives" },
        reached ? `${size} ${two(gradient)}` : "no gradient",
      ),
      element("code", {}, code),
      element("span", { class: "gradient-link-facts" }, facts.join(", ")),
      cut
        ? element(
            "span",
            { class: "gradient-link-cut" },
            element("span", { "aria-hidden": "true" }, "✂ "),
            "The gradient stops here: ids are whole numbers, and carry none.",
          )
        : "",
    );
  });
}
