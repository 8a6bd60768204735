// Where one estimator stands on each task, among all that were measured there.
(() => {
  const box = document.getElementById("standing");
  if (!box) return;
  const { intervals, numbers } = gradest;
  const name = box.dataset.estimator;
  const values = gradest.data.suites.flatMap((suite) => {
    const rows = gradest.rows(suite).filter((row) => row.parameter === "log_alpha" && row.evaluations && intervals.known(row.variance));
    const count = new Set(rows.filter((row) => row.estimator === name).map((row) => row.task.label)).size;
    if (count > 12) return []; // the atlas shows so many settings
    return rows.map((row) => ({ ...row, work: intervals.scaled(row.variance, row.evaluations), panel: `${row.task.label} · ${suite.name}` }));
  });
  const own = new Set(values.filter((row) => row.estimator === name).map((row) => row.panel));
  const scale = {}; // of a panel: its median, so that all panels share an axis
  for (const panel of own) {
    const all = values.filter((row) => row.panel === panel && row.work[0] > 0).map((row) => row.work[0]).sort((a, b) => a - b);
    scale[panel] = all[Math.floor(all.length / 2)] || 1;
  }
  const shown = values.filter((row) => own.has(row.panel)).map((row) => ({
    panel: row.panel, label: row.label, own: row.estimator === name, zero: !(row.work[0] > 0),
    x: row.work[0] / scale[row.panel], low: row.work[1] / scale[row.panel], high: row.work[2] / scale[row.panel],
    text: numbers.interval(row.work), verdict: row.verdict,
  }));
  if (!shown.length) { box.hidden = true; return; }
  const positive = shown.filter((each) => !each.zero).map((each) => each.x);
  const least = Math.max(Math.min(...positive) / 3, 1e-8);
  const placed = shown.map((each) => ({ ...each, x: each.zero ? least : Math.max(each.x, least), low: Math.max(each.low || least, least), high: Math.max(each.high || least, least) }));
  const tooltip = [{ field: "label", title: "estimator" }, { field: "text", title: "variance × evaluations" }, { field: "verdict", title: "bias" }];
  const x = (title) => ({ field: "x", type: "quantitative", scale: { type: "log", nice: false, padding: 12 }, axis: { title, format: "~g", tickCount: 6 } });
  gradest.charts.draw(box, (c, width) => {
    const narrow = width < 560;
    const y = { field: "panel", type: "nominal", sort: [...new Set(placed.map((each) => each.panel))], axis: { title: null, labelLimit: narrow ? 130 : 260, grid: true } };
    return {
      width: Math.max(width - (narrow ? 150 : 290), 150), height: { step: 34 }, data: { values: placed },
      layer: [
        { transform: [{ filter: "!datum.own" }], mark: { type: "tick", color: c.other, thickness: 1.5, size: 14 }, encoding: { x: x("variance × evaluations, relative to the median estimator"), y, tooltip } },
        ...(placed.some((each) => each.own && !each.zero) ? [{ transform: [{ filter: "datum.own && !datum.zero" }], mark: { type: "rule", color: c.main, strokeWidth: 2 }, encoding: { x: { ...x(""), field: "low" }, x2: { field: "high" }, y } }] : []),
        { transform: [{ filter: "datum.own" }], mark: { type: "point", filled: true, opacity: 1, size: 70, color: c.main }, encoding: { x: x(""), y, tooltip } },
      ],
    };
  }, `standing-${name}`);
})();
