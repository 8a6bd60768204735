// Which estimator for my problem: the answers, and the measured ranking under them.
(() => {
  const form = document.getElementById("choose-form");
  if (!form) return;
  const { data, intervals, numbers, state, charts } = gradest;
  const [chart, table, answer, others] = ["chart", "rows", "answer", "others"].map((id) => document.getElementById(id));
  const BUDGETS = [1, 2, 4, 8, 16, 64, 256, 4096];
  // Settings with few estimators, such as those of a curve over α, say less than those with many.
  const places = data.suites.flatMap((suite) => suite.tasks.filter((task) => task.at === undefined && !task.point).map((task) => ({ suite, task, key: `${suite.name}/${task.label}` })));
  const rowsOf = new Map(data.suites.map((suite) => [suite, gradest.rows(suite)]));
  let chosen = {};

  const restore = () => {
    const said = Object.fromEntries(state.read());
    const latents = said.latents === "bits" ? "bits" : "";
    const fitting = places.filter(({ task }) => (latents === "bits") === (task.categories === 2));
    const task = fitting.find(({ key }) => key === said.task) || fitting[0] || places[0];
    chosen = {
      needs: ["black box", "uses f'"].includes(said.needs) ? said.needs : "", latents, bias: said.bias === "unbiased" ? "unbiased" : "",
      budget: BUDGETS.includes(Number(said.budget)) ? Number(said.budget) : 16, task,
    };
    for (const name of ["needs", "latents", "bias"]) state.check(form, name, chosen[name]);
    state.pills(form.querySelector('[data-name="budget"]'), BUDGETS.map((each) => [String(each), each.toLocaleString("en")]), String(chosen.budget));
    const several = new Set(fitting.map(({ suite }) => suite)).size > 1;
    state.pills(form.querySelector('[data-name="task"]'), fitting.map(({ key, suite, task: each }) => [key, several ? `${each.label} (${suite.name})` : each.label]), task ? task.key : "");
  };
  const save = () => state.write({ needs: state.value(form, "needs"), latents: state.value(form, "latents"), bias: state.value(form, "bias"), budget: state.value(form, "budget"), task: state.value(form, "task") });

  const show = () => {
    restore();
    if (!chosen.task) { answer.textContent = "No task was measured."; return; }
    const { suite, task } = chosen.task;
    const all = rowsOf.get(suite).filter((row) => row.task === task && row.parameter === "log_alpha");
    const measured = all.filter((row) => intervals.known(row.variance) && intervals.known(row.bias) && row.evaluations > 0);
    const fits = measured.filter((row) => gradest.allowed(row.claims, chosen.needs) && !(chosen.bias && row.claims && !row.claims.unbiased));
    const affordable = fits.filter((row) => row.passes <= chosen.budget);
    const square = gradest.scaleOf(suite, task);
    const shown = affordable.map((row) => {
      const estimates = chosen.budget / row.passes;
      return { row, error: intervals.scaled(intervals.sum(row.bias, intervals.scaled(row.variance, 1 / estimates)), square), estimates };
    }).sort((a, b) => a.error[0] - b.error[0]);
    say(shown, fits.length - affordable.length, measured.length - fits.length, task);
    const unit = square === 1 ? "MSE" : "MSE / ‖g‖²";
    gradest.fill(table, [["estimator"], [unit, true], ["bias, measured"], ["relative bias", true], ["estimates averaged", true], ["evaluations each", true], ["needs"]],
      shown.map(({ row, error, estimates }) => [gradest.link(row), numbers.interval(error), gradest.tag(row.verdict, row.verdict), numbers.interval(row.relative), numbers.number(estimates), row.passes.toLocaleString("en"), row.claims ? row.claims.needs : ""]));
    draw(shown.slice(0, 25), unit);
  };
  const say = (shown, tooDear, excluded, task) => {
    answer.replaceChildren();
    if (!shown.length) {
      answer.append(`No estimator that was measured on ${task.label} meets these constraints.`);
    } else {
      const best = shown[0];
      const ties = shown.slice(1).filter(({ error }) => !(error[1] > best.error[2]));
      answer.append("Begin with ", gradest.link(best.row));
      answer.append(`: the smallest error on ${task.label} with ${chosen.budget.toLocaleString("en")} evaluations. `);
      if (ties.length) answer.append(`The intervals of ${ties.length} more overlap with its own${ties.length <= 4 ? ": " : "."}`);
      if (ties.length && ties.length <= 4) ties.forEach((each, n) => answer.append(n ? ", " : "", gradest.link(each.row)));
      if (ties.length && ties.length <= 4) answer.append(".");
    }
    const left = [tooDear && `${tooDear} would fit but need more evaluations for a single estimate`, excluded && `${excluded} are excluded by your answers to questions 1 and 3`].filter(Boolean).join("; ");
    others.replaceChildren(left ? Object.assign(document.createElement("p"), { className: "note", textContent: `Of the estimators measured on this task, ${left}.` }) : "");
    const view = new URLSearchParams({ suite: chosen.task.suite.name, setting: task.label, ...(chosen.bias && { bias: chosen.bias }), ...(chosen.needs && { needs: chosen.needs }), measure: "mse", budget: String(chosen.budget) });
    others.append(Object.assign(document.createElement("a"), { href: `atlas.html#${view}`, textContent: "See the same estimators in the atlas" }));
  };
  const draw = (shown, unit) => {
    const positive = shown.map(({ error }) => error[0]).filter((x) => x > 0);
    if (!shown.length) { chart.replaceChildren(); return; }
    const least = positive.length ? Math.min(...positive) / 3 : 1e-3;
    const values = shown.map(({ row, error }) => ({
      label: row.label, zero: !(error[0] > 0), x: error[0] > 0 ? error[0] : least, low: Math.max(error[1], least), high: Math.max(error[2], least), text: numbers.interval(error), verdict: row.verdict, bias: numbers.interval(row.relative),
    }));
    charts.draw(chart, (c, width) => {
      const narrow = width < 560;
      const y = { field: "label", type: "nominal", sort: values.map((each) => each.label), axis: { title: null, labelLimit: narrow ? 130 : 320 } };
      const x = { field: "x", type: "quantitative", scale: { type: "log", nice: false, padding: 12 }, axis: { title: `${unit} of the mean`, format: "~g", tickCount: narrow ? 4 : 8, orient: "top" } };
      const color = { field: "verdict", type: "nominal", scale: { domain: ["unbiased", "biased", "inconclusive"], range: [c.better, c.worse, c.dim] }, legend: { title: "bias, measured", orient: "bottom", columns: narrow ? 2 : 3 } };
      const tooltip = [{ field: "label", title: "estimator" }, { field: "text", title: unit }, { field: "bias", title: "relative bias" }, { field: "verdict", title: "bias" }];
      return {
        width: Math.max(width - (narrow ? 150 : 350), 150), height: { step: 22 }, data: { values },
        layer: [
          // An empty layer would warn of its empty axis.
          ...(values.some((each) => each.high > each.low) ? [{ transform: [{ filter: "datum.high > datum.low" }], mark: { type: "rule", strokeWidth: 2 }, encoding: { y, x: { ...x, field: "low" }, x2: { field: "high" }, color } }] : []),
          { transform: [{ filter: "!datum.zero" }], mark: { type: "point", filled: true, opacity: 1, size: 60 }, encoding: { y, x, color, tooltip } },
          { transform: [{ filter: "datum.zero" }], mark: { type: "point", shape: "triangle-left", filled: true, opacity: 1, size: 70 }, encoding: { y, x, color, tooltip } },
        ],
      };
    }, "gradest-choice");
  };
  // 1/‖g‖² of a task, where it was measured and is not zero.
  gradest.scaleOf = (suite, task) => {
    const norm = rowsOf.get(suite).find((row) => row.task === task && row.parameter === "log_alpha" && row.norm > 0)?.norm;
    return norm ? 1 / norm ** 2 : 1;
  };
  form.addEventListener("change", () => { const { name, value } = document.activeElement; save(); show(); form.querySelector(`input[name="${CSS.escape(name || "")}"][value="${CSS.escape(value || "")}"]`)?.focus({ preventScroll: true }); });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", show);
  show();
})();
