// Numbers as text, as precise as their intervals: two significant digits of the width.
window.gradest = window.gradest || {};
gradest.numbers = (() => {
  const superscript = (n) => String(n).replace("-", "⁻").replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
  const parts = (values, width) => {
    const top = Math.floor(Math.log10(Math.max(...values.map(Math.abs)) || width));
    const last = Math.max(Math.floor(Math.log10(width)) - 1, top - 5);
    const exponent = top >= -4 && top < 6 ? 0 : top;
    const fixed = (x) => (x / 10 ** exponent).toFixed(Math.min(Math.max(exponent - last, 0), 20)).replace("-", "−");
    return [fixed, exponent ? ` × 10${superscript(exponent)}` : ""];
  };
  const number = (x) => {
    if (x === null || Number.isNaN(x)) return "n/a";
    if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
    if (x === 0) return "0";
    const [fixed, power] = parts([x], Math.abs(x) / 10);
    return fixed(x) + power;
  };
  const interval = ([x, low, high]) => {
    if (!(high > low) || !Number.isFinite(high - low)) return number(x);
    const [fixed, power] = parts([x, low, high], high - low);
    return `${fixed(x)} [${fixed(low)}, ${fixed(high)}]${power}`;
  };
  return { number, interval };
})();
