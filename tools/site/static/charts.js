// Charts by Vega-Lite in the colours of the page, drawn anew when the page turns dark or light.
window.gradest = window.gradest || {};
gradest.charts = (() => {
  const drawn = new Map();
  const colour = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
  const colours = () => ({
    text: colour("--color-foreground-primary"), dim: colour("--color-foreground-secondary"),
    line: colour("--color-background-border"), main: colour("--chart-main"), other: colour("--chart-other"),
    better: colour("--better"), worse: colour("--worse"),
  });
  const config = (c) => ({
    background: null, font: getComputedStyle(document.body).fontFamily,
    view: { stroke: c.line },
    axis: { labelColor: c.text, titleColor: c.text, gridColor: c.line, domainColor: c.line, tickColor: c.line, labelFontSize: 12, titleFontSize: 12, labelLimit: 320, titleFontWeight: "normal" },
    legend: { labelColor: c.text, titleColor: c.text, labelFontSize: 12, titleFontWeight: "normal", labelLimit: 260 },
    header: { labelColor: c.text, titleColor: c.text },
  });
  // `spec` is a function of the colours and the width in pixels.
  const draw = async (box, spec, name) => {
    drawn.set(box, [spec, name]);
    const c = colours();
    const full = { ...spec(c, box.clientWidth), config: config(c), usermeta: undefined };
    const night = document.body.dataset.theme === "dark" || (document.body.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    await vegaEmbed(box, full, {
      mode: "vega-lite", renderer: "svg", ast: false, downloadFileName: name || "gradest",
      actions: { export: true, source: false, compiled: false, editor: false }, tooltip: { theme: night ? "dark" : "light" },
    });
    box.dataset.drawn = String(Number(box.dataset.drawn || 0) + 1);
  };
  const again = () => drawn.forEach(([spec, name], box) => box.isConnected && draw(box, spec, name));
  new MutationObserver(again).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; again(); } });
  return { draw };
})();

// Rows of the data as objects, with intervals as [estimate, low, high].
gradest.rows = (suite) => {
  const at = Object.fromEntries(gradest.data.columns.map((name, n) => [name, n]));
  const three = (row, name) => [row[at[name]], row[at[`${name}_low`]], row[at[`${name}_high`]]];
  return suite.rows.map((row) => ({
    suite: suite.name, task: suite.tasks[row[at.task]], parameter: row[at.parameter], label: row[at.label], estimator: row[at.estimator],
    verdict: row[at.verdict], bias: three(row, "bias"), variance: three(row, "variance"), relative: three(row, "relative_bias"),
    seconds: three(row, "seconds"), evaluations: row[at.evaluations], passes: row[at.evaluations] + (row[at.gradient_evaluations] || 0),
    norm: row[at.gradient_norm], rank: row[at.rank], claims: gradest.data.estimators[row[at.estimator]],
  }));
};
// Whether an estimator can be used where f is no more than this; "" is everything.
gradest.allowed = (claims, needs) => !needs || !claims || claims.needs === "black box" || claims.needs === needs;
gradest.page = (name, up = "") => (gradest.data.estimators[name] ? `${up}estimators/${name}.html` : null);
gradest.link = (row, up = "") => {
  const to = gradest.page(row.estimator, up);
  return to ? Object.assign(document.createElement("a"), { href: to, textContent: row.label }) : document.createTextNode(row.label);
};
gradest.fill = (table, headers, lines) => {
  const cell = (tag, content, number) => {
    const made = document.createElement(tag);
    made.append(content);
    if (number) made.className = "number";
    return made;
  };
  const line = (cells) => { const row = document.createElement("tr"); row.append(...cells); return row; };
  table.tHead.replaceChildren(line(headers.map(([text, number]) => Object.assign(cell("th", text, number), { scope: "col" }))));
  table.tBodies[0].replaceChildren(...lines.map((cells) => line(cells.map((content, n) => cell("td", content, headers[n][1])))));
};
gradest.tag = (text, kind) => Object.assign(document.createElement("span"), { className: `verdict ${kind}`, textContent: text });
