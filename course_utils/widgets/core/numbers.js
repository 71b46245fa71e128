// Numbers as text.

export const whole = new Intl.NumberFormat("en-US");
export const roughly = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 3 });

/** @param {number} share 0 to 1 */
export function percent(share) {
  return share > 0 && share < 0.0001 ? "<0.01 %" : `${(100 * share).toFixed(2)} %`;
}

/** With `digits` decimals and a real minus. */
export function decimals(number, digits = 2) {
  return number.toFixed(digits).replace("-", "−");
}

/** Two decimals, no minus before 0. */
export function two(number) {
  return Math.abs(number) < 0.005 ? "0.00" : decimals(number);
}

/** As short as it is, four decimals at most. */
export function short(number) {
  return String(Number(number.toFixed(4))).replace("-", "−");
}
