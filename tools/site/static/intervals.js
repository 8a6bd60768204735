// Arithmetic of estimates with intervals, [estimate, low, high], as gradest.statistics.Interval does it:
// distances to the ends of independent estimates add in quadrature (MOVER).
window.gradest = window.gradest || {};
gradest.intervals = (() => {
  const scaled = (x, factor) => x.map((end) => end * factor);
  const sum = (x, y) => {
    const total = x[0] + y[0];
    return [total, total - Math.hypot(x[0] - x[1], y[0] - y[1]), total + Math.hypot(x[2] - x[0], y[2] - y[0])];
  };
  // By logarithms, with the distances multiplied by `width`.
  const combined = (x, y, sign, width) => {
    const estimate = sign > 0 ? x[0] * y[0] : x[0] / y[0];
    if (!(x[0] >= 0 && y[0] > 0)) return null;
    if (x[2] === 0) return [0, 0, 0];
    const [a, b] = [x.map(Math.log), y.map(Math.log)];
    const [low, high] = sign > 0 ? [b[0] - b[1], b[2] - b[0]] : [b[2] - b[0], b[0] - b[1]];
    return [estimate, estimate * Math.exp(-width * Math.hypot(a[0] - a[1], low)),
      estimate * Math.exp(width * Math.hypot(a[2] - a[0], high))];
  };
  const ratio = (x, y, width = 1) => combined(x, y, -1, width);
  const product = (x, y) => combined(x, y, 1, 1);
  const known = (x) => x !== null && x.every((end) => end !== null && Number.isFinite(end));
  return { scaled, sum, ratio, product, known };
})();
