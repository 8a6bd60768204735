// The atlas: what the form chooses, as a chart, a table and a sentence; the choice is in the address.
(() => {
  const form = document.getElementById("atlas-form");
  if (!form) return;
  const { data, intervals, numbers, state, charts } = gradest;
  const [chart, table, answer] = ["chart", "rows", "answer"].map((id) => document.getElementById(id));
  const BASE = "rloo (samples=4)"; // what is compared with, where it was measured
  const MEASURES = {
    "": { title: "variance × evaluations", of: (row) => intervals.scaled(row.variance, row.evaluations), words: "at equal evaluations" },
    mse: { title: "MSE at the budget", of: (row, budget) => intervals.sum(row.bias, intervals.scaled(row.variance, row.passes / budget)), words: "at equal evaluations, by the MSE" },
    variance: { title: "variance of one estimate", of: (row) => row.variance, words: "estimate for estimate" },
    time: { title: "variance × seconds", of: (row) => intervals.product(row.variance, row.seconds), words: "at equal time" },
    bias: { title: "relative bias", of: (row) => row.relative, words: "by the relative bias" },
  };
  const rowsOf = Object.fromEntries(data.suites.map((suite) => [suite.name, gradest.rows(suite)]));
  const suiteOf = (name) => data.suites.find((suite) => suite.name === name) || data.suites[0];
  const unique = (values) => [...new Set(values)];
  let chosen = {};
  let picked = null; // a set of estimators; null: all

  // What the address says, completed by what is possible; the form shows it.
  const restore = () => {
    const said = Object.fromEntries(state.read());
    const suite = suiteOf(said.suite);
    const setting = suite.tasks.find((task) => task.label === said.setting);
    const names = unique(suite.tasks.map((task) => task.task));
    const task = setting ? setting.task : names.includes(said.task) ? said.task : names[0];
    const settings = suite.tasks.filter((each) => each.task === task).map((each) => each.label);
    const rows = rowsOf[suite.name];
    const parameters = unique(rows.filter((row) => row.task.task === task).map((row) => row.parameter));
    const labels = unique(rows.filter((row) => row.task.task === task).map((row) => row.label));
    const first = labels.find((label) => label === BASE) || labels.find((label) => label.startsWith("rloo")) || labels[0];
    chosen = {
      suite: suite.name, task, setting: setting ? setting.label : settings[0],
      bias: said.bias === "unbiased" ? "unbiased" : "", needs: ["black box", "uses f'"].includes(said.needs) ? said.needs : "",
      view: ["plane", "tasks", "along"].includes(said.view) ? said.view : "", measure: said.measure in MEASURES ? said.measure : "",
      budget: Number(said.budget) > 0 ? Number(said.budget) : 64,
      against: labels.includes(said.against) ? said.against : first,
      parameter: parameters.includes(said.parameter) ? said.parameter : parameters.includes("log_alpha") ? "log_alpha" : parameters[0],
    };
    picked = said.pick ? new Set(said.pick.split(",")) : null;
    form.querySelector('[data-name="suite"]').previousElementSibling.textContent = suite.description ? `Suite: ${suite.description}` : "Suite";
    state.pills(form.querySelector('[data-name="suite"]'), data.suites.map((each) => [each.name, each.name]), suite.name);
    state.pills(form.querySelector('[data-name="task"]'), names.map((each) => [each, each]), task);
    for (const name of ["bias", "needs", "view"]) state.check(form, name, chosen[name]);
    state.options(form.setting, settings.map((each) => [each, each]), chosen.setting);
    form.setting.closest("label").hidden = settings.length < 2 || ["tasks", "along"].includes(chosen.view);
    form.measure.value = chosen.measure;
    state.options(form.budget, [4, 16, 64, 256, 1024, 4096].map((each) => [String(each), `${each} evaluations`]), String(chosen.budget));
    form.budget.closest("label").hidden = chosen.measure !== "mse";
    state.options(form.against, labels.map((each) => [each, each]), chosen.against);
    state.options(form.parameter, parameters.map((each) => [each, each.replaceAll("log_alpha", "log α").replace(/^alpha$/, "α")]), chosen.parameter);
    form.parameter.closest("label").hidden = parameters.length < 2;
    form.against.closest("label").hidden = chosen.view === "along" && suite.tasks.some((each) => each.task === task && each.at !== undefined);
    choices(unique(rows.map((row) => row.estimator)));
  };
  const choices = (names) => {
    document.querySelector("#pick .checks").replaceChildren(...names.sort().map((name) => {
      const label = document.createElement("label");
      label.append(Object.assign(document.createElement("input"), { type: "checkbox", value: name, checked: !picked || picked.has(name) }), ` ${name}`);
      return label;
    }));
  };
  const save = () => {
    const names = { bias: state.value(form, "bias"), needs: state.value(form, "needs"), view: state.value(form, "view") };
    const suite = state.value(form, "suite");
    const task = state.value(form, "task");
    const moved = suite !== chosen.suite || task !== chosen.task;
    state.write({
      suite: suite === data.suites[0].name ? "" : suite, task, setting: moved ? "" : form.setting.value, ...names, measure: form.measure.value,
      budget: form.measure.value === "mse" ? form.budget.value : "", against: form.against.value === BASE || suite !== chosen.suite ? "" : form.against.value,
      parameter: form.parameter.value === "log_alpha" ? "" : form.parameter.value, pick: picked ? [...picked].join(",") : "",
    });
  };

  const fits = (row) => gradest.allowed(row.claims, chosen.needs) && !(chosen.bias && row.claims && !row.claims.unbiased) && (!picked || picked.has(row.estimator));
  const measured = (row) => intervals.known(row.variance) && row.evaluations > 0;
  const valueOf = (row) => { const x = MEASURES[chosen.measure].of(row, chosen.budget); return x && intervals.known(x) ? x : null; };
  const atSetting = (label) => rowsOf[chosen.suite].filter((row) => row.task.label === label && row.parameter === chosen.parameter && measured(row));
  // The rows of a setting with their ratio to the base, best first; the base is there in any case.
  const compared = (label) => {
    const rows = atSetting(label);
    const base = rows.find((row) => row.label === chosen.against);
    const reference = base && valueOf(base);
    const shown = rows.filter((row) => fits(row) || row === base).map((row) => ({ row, value: valueOf(row) })).filter((each) => each.value);
    const width = data.widths[Math.min(Math.max(shown.length - 1, 1), data.widths.length - 1)];
    for (const each of shown) {
      each.base = each.row === base;
      each.ratio = reference && chosen.measure !== "bias" && !each.base ? intervals.ratio(each.value, reference, width) : null;
      each.verdict = each.base ? "base" : !each.ratio ? "" : each.ratio[2] < 1 ? "better" : each.ratio[1] > 1 ? "worse" : "open";
      each.extra = each.base && !fits(each.row);
    }
    return shown.sort((a, b) => a.value[0] - b.value[0]);
  };
  const WORDS = { better: "better", worse: "worse", open: "not separated", base: "compared with", "": "" };

  const sentence = (shown) => {
    const others = shown.filter((each) => !each.base);
    const group = [chosen.bias && "unbiased", chosen.needs === "black box" && "black-box"].filter(Boolean).join(" ");
    const kind = `${others.length} ${group} estimators`.replace("  ", " ");
    answer.replaceChildren();
    const say = (text) => answer.append(text);
    if (!others.length) { say(`No other estimator on ${chosen.setting} fits these choices.`); return; }
    if (chosen.measure === "bias" || !shown.some((each) => each.base)) { say(`${kind} on ${chosen.setting}, best first.`); return; }
    const ahead = others.filter((each) => each.verdict === "better");
    say(ahead.length ? `${ahead.length} of ${kind} beat ${chosen.against} on ${chosen.setting} ${MEASURES[chosen.measure].words}: ` : `None of ${kind} beats ${chosen.against} on ${chosen.setting} ${MEASURES[chosen.measure].words}`);
    const base = shown.find((each) => each.base).row;
    ahead.slice(0, 12).forEach((each, n) => {
      if (n) say(", ");
      answer.append(gradest.link(each.row));
      if (each.row.evaluations > 8 * base.evaluations) say(` (one estimate takes ${each.row.evaluations.toLocaleString("en")} evaluations)`);
    });
    if (ahead.length > 12) say(` and ${ahead.length - 12} more`);
    say(". ");
    if (chosen.measure !== "mse" && others.some((each) => each.row.verdict === "biased")) say("Bias is not counted here, and some of them are biased: choose the MSE as the measure, or only unbiased ones. ");
    const open = others.filter((each) => each.verdict === "open").length;
    if (open) say(`${open} more ${open === 1 ? "is" : "are"} not separated from it by these measurements.`);
  };
  const list = (shown) => {
    const { title } = MEASURES[chosen.measure];
    gradest.fill(table, [["estimator"], [`against ${chosen.against}`], ["ratio", true], [title, true], ["bias, measured"], ["relative bias", true], ["needs"], ["evaluations", true]],
      shown.map((each) => [
        gradest.link(each.row), gradest.tag(WORDS[each.verdict], each.verdict), each.ratio ? numbers.interval(each.ratio) : "", numbers.interval(each.value),
        gradest.tag(each.row.verdict, each.row.verdict), numbers.interval(each.row.relative), each.row.claims ? each.row.claims.needs : "", each.row.evaluations.toLocaleString("en"),
      ]));
  };
  const colourOf = (c) => ({ field: "verdict", type: "nominal", scale: { domain: ["better", "not separated", "worse", "compared with"], range: [c.better, c.dim, c.worse, c.main] }, legend: { title: null, orient: "top", columns: innerWidth < 560 ? 2 : 4 } });

  const ranking = () => {
    const shown = compared(chosen.setting);
    sentence(shown);
    list(shown);
    const absolute = chosen.measure === "bias" || !shown.some((each) => each.ratio);
    const numbersOf = (each) => (absolute ? each.value : each.base ? [1, 1, 1] : each.ratio);
    const usable = shown.filter(numbersOf);
    const positive = usable.flatMap((each) => numbersOf(each).filter((x) => x > 0));
    const least = positive.length ? Math.min(...usable.map((each) => numbersOf(each)[0]).filter((x) => x > 0), ...positive.filter((x) => x > 1e-3 * Math.min(...usable.map((each) => numbersOf(each)[0]).filter((y) => y > 0)))) / 2 : 0.1;
    const values = usable.map((each) => {
      const [x, low, high] = numbersOf(each);
      return {
        label: each.row.label, verdict: WORDS[each.verdict] || "not separated", zero: !(x > 0), x: x > 0 ? x : least, low: Math.max(low, least), high: Math.max(high, least), hollow: each.row.verdict !== "unbiased",
        ratio: each.ratio ? numbers.interval(each.ratio) : "1", value: numbers.interval(each.value), bias: `${each.row.verdict}, ${numbers.interval(each.row.relative)}`, evaluations: each.row.evaluations,
      };
    });
    const title = absolute ? MEASURES[chosen.measure].title : `${MEASURES[chosen.measure].title}, relative to ${chosen.against}`;
    charts.draw(chart, (c, width) => {
      const narrow = width < 560;
      const y = { field: "label", type: "nominal", sort: values.map((each) => each.label), axis: { title: null, labelLimit: narrow ? 130 : 320 } };
      const x = { field: "x", type: "quantitative", scale: { type: "log", nice: false, padding: 12 }, axis: { title, format: "~g", tickCount: narrow ? 4 : 8, orient: "top" } };
      const tooltip = [{ field: "label", title: "estimator" }, { field: "value", title: MEASURES[chosen.measure].title }, ...(absolute ? [] : [{ field: "ratio", title: "ratio" }]), { field: "bias", title: "bias" }, { field: "evaluations", title: "evaluations of f" }];
      return {
        width: Math.max(width - (narrow ? 150 : 350), 150), height: { step: 22 }, data: { values },
        layer: [
          ...(absolute ? [] : [{ data: { values: [{}] }, mark: { type: "rule", color: c.main, strokeDash: [4, 4] }, encoding: { x: { datum: 1, type: "quantitative" } } }]),
          // An empty layer would warn of its empty axis.
          ...(values.some((each) => each.high > each.low) ? [{ transform: [{ filter: "datum.high > datum.low" }], mark: { type: "rule", strokeWidth: 2 }, encoding: { y, x: { ...x, field: "low" }, x2: { field: "high" }, color: colourOf(c) } }] : []),
          { transform: [{ filter: "!datum.zero" }], mark: { type: "point", filled: true, opacity: 1, size: 60 }, encoding: { y, x, color: colourOf(c), tooltip } },
          { transform: [{ filter: "datum.zero" }], mark: { type: "point", shape: "triangle-left", filled: true, opacity: 1, size: 70 }, encoding: { y, x, color: colourOf(c), tooltip } },
        ],
      };
    }, "gradest-ranking");
  };
  const plane = () => {
    const shown = compared(chosen.setting);
    sentence(shown);
    list(shown);
    const floor = 1e-4;
    const values = shown.map((each) => {
      const work = intervals.scaled(each.row.variance, each.row.evaluations);
      return {
        label: each.row.label, verdict: WORDS[each.verdict] || "not separated", bias: Math.max(each.row.relative[0] || 0, floor), biasLow: Math.max(each.row.relative[1] || 0, floor), biasHigh: Math.max(each.row.relative[2] || 0, floor),
        work: work[0], low: work[1], high: work[2], text: numbers.interval(work), relative: numbers.interval(each.row.relative), found: each.row.verdict,
      };
    }).filter((each) => each.work > 0);
    // A label that another one would cover is left to the tooltip.
    const spread = Math.log(Math.max(...values.map((each) => each.work)) / Math.min(...values.map((each) => each.work))) || 1;
    const kept = [];
    for (const each of values) {
      const near = (other) => Math.abs(Math.log(each.work / other.work)) < spread / 28 && Math.abs(Math.log10(each.bias / other.bias)) < 1.4;
      if (!kept.some(near)) kept.push(each);
      each.text_label = kept.includes(each) ? each.label : "";
    }
    charts.draw(chart, (c, width) => {
      const x = { field: "bias", type: "quantitative", scale: { type: "log" }, axis: { title: "relative bias (0.0001: that or less)", format: "~g", tickCount: 5 } };
      const y = { field: "work", type: "quantitative", scale: { type: "log" }, axis: { title: "variance × evaluations", format: "~g", tickCount: 5 } };
      const tooltip = [{ field: "label", title: "estimator" }, { field: "relative", title: "relative bias" }, { field: "text", title: "variance × evaluations" }, { field: "found", title: "bias" }];
      return {
        width: Math.max(width - 90, 200), height: Math.min(460, Math.max(width * 0.6, 260)), data: { values },
        layer: [
          { mark: { type: "rule", opacity: 0.6 }, encoding: { x: { ...x, field: "biasLow" }, x2: { field: "biasHigh" }, y, color: colourOf(c) } },
          { mark: { type: "rule", opacity: 0.6 }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color: colourOf(c) } },
          { mark: { type: "point", filled: true, opacity: 1, size: 60 }, encoding: { x, y, color: colourOf(c), tooltip } },
          ...(width > 560 ? [{ mark: { type: "text", align: "left", dx: 7, dy: -6, fontSize: 10, color: c.text }, encoding: { x, y, text: { field: "text_label" } } }] : []),
        ],
      };
    }, "gradest-bias-variance");
  };
  const tasks = () => {
    const suite = suiteOf(chosen.suite);
    const cells = suite.tasks.flatMap((task) => compared(task.label).map((each) => ({ ...each, task: task.label })));
    const values = cells.filter((each) => each.ratio || each.base).map((each) => ({
      label: each.row.label, task: each.task, log: each.base ? 0 : Math.max(Math.log10(each.ratio[0] || 1e-3), -3), verdict: WORDS[each.verdict], ratio: each.base ? "1" : numbers.interval(each.ratio), mark: each.verdict === "better" ? "▼" : each.verdict === "worse" ? "▲" : "",
    }));
    const wins = {};
    for (const each of cells) if (each.verdict === "better") wins[each.row.label] = (wins[each.row.label] || 0) + 1;
    const order = unique(values.map((each) => each.label)).sort((a, b) => (wins[b] || 0) - (wins[a] || 0) || a.localeCompare(b));
    answer.replaceChildren(`Each cell compares an estimator with ${chosen.against} ${MEASURES[chosen.measure].words}: ▼ has significantly less, ▲ more. Those that are ahead on most tasks come first.${chosen.measure !== "mse" && !chosen.bias ? " Bias is not counted: choose the MSE as the measure, or only unbiased estimators." : ""}`);
    gradest.fill(table, [["estimator"], ["ahead on", true]], order.map((label) => [gradest.link(cells.find((each) => each.row.label === label).row), String(wins[label] || 0)]));
    charts.draw(chart, (c, width) => {
      const narrow = width < 560;
      const y = { field: "label", type: "nominal", sort: order, axis: { title: null, labelLimit: narrow ? 130 : 320 } };
      const x = { field: "task", type: "nominal", sort: null, axis: { title: null, orient: "top", labelAngle: -35, labelLimit: 150 } };
      return {
        width: Math.max(width - (narrow ? 190 : 400), 150), height: { step: 20 }, data: { values },
        encoding: { x, y, tooltip: [{ field: "label", title: "estimator" }, { field: "task" }, { field: "ratio", title: `ratio to ${chosen.against}` }, { field: "verdict", title: "verdict" }] },
        layer: [
          { mark: { type: "rect" }, encoding: { color: { field: "log", type: "quantitative", scale: { domain: [-2, 0, 2], range: ["#1a9c75", "#e9ecf0", "#d9742b"], interpolate: "rgb", clamp: true }, legend: { title: "ratio", orient: "top", values: [-2, -1, 0, 1, 2], labelExpr: "datum.value == 0 ? '1' : format(pow(10, datum.value), '~g')" } } } },
          { mark: { type: "text", fontSize: 9, color: "#1d2430" }, encoding: { text: { field: "mark" } } },
        ],
      };
    }, "gradest-tasks");
  };
  const along = () => {
    const suite = suiteOf(chosen.suite);
    const places = suite.tasks.filter((task) => task.task === chosen.task && (task.at !== undefined || task.point));
    if (!places.length) {
      answer.replaceChildren(`${chosen.task} was measured at too few settings of one knob in the suite ${chosen.suite} for a curve. `);
      const other = data.suites.find((each) => each.tasks.some((task) => task.at !== undefined || task.point));
      if (other) answer.append(Object.assign(document.createElement("a"), { href: `#suite=${other.name}&view=along`, textContent: `See the suite ${other.name}.` }));
      chart.replaceChildren();
      gradest.fill(table, [], []);
      return;
    }
    const rows = places.flatMap((task) => compared(task.label).map((each) => ({ ...each, task })));
    gradest.fill(table, [], []);
    const { title } = MEASURES[chosen.measure];
    if (places[0].at !== undefined) {
      answer.replaceChildren(`${title[0].toUpperCase()}${title.slice(1)} on ${chosen.task} as a function of ${places[0].axis}. Hover over a curve for its interval; a value of zero has no point.`);
      const values = rows.filter((each) => each.value[0] > 0).map((each) => ({ at: each.task.at, label: each.row.label, x: each.value[0], low: Math.max(each.value[1], each.value[0] / 1e3), high: each.value[2], text: numbers.interval(each.value) }));
      charts.draw(chart, (c, width) => ({
        width: Math.max(width - (width < 560 ? 80 : 340), 200), height: 380, data: { values },
        encoding: { x: { field: "at", type: "quantitative", axis: { title: places[0].axis } }, color: { field: "label", type: "nominal", scale: { scheme: "tableau20" }, legend: { title: null, symbolOpacity: 1, symbolType: "stroke", symbolStrokeWidth: 3, orient: width < 560 ? "bottom" : "right", columns: 1 } } },
        layer: [
          { mark: { type: "area", opacity: 0.15 }, encoding: { y: { field: "low", type: "quantitative", scale: { type: "log" }, axis: { title, format: "~g", tickCount: 6 } }, y2: { field: "high" } } },
          { mark: { type: "line", point: { size: 25 } }, encoding: { y: { field: "x", type: "quantitative", scale: { type: "log" } }, tooltip: [{ field: "label", title: "estimator" }, { field: "at", title: places[0].axis }, { field: "text", title }] } },
        ],
      }), "gradest-along");
      return;
    }
    const name = picked && picked.size === 1 ? [...picked][0] : null;
    const labels = unique(rows.filter((each) => !each.base && (!name || each.row.estimator === name)).map((each) => each.row.label));
    answer.replaceChildren(`Each point is a setting of ${places[0].axis} on the simplex, one triangle an estimator: the ratio of its ${title} to that of ${chosen.against}.`);
    const values = rows.filter((each) => each.ratio && labels.includes(each.row.label)).map((each) => ({ label: each.row.label, x: each.task.point[1] + each.task.point[2] / 2, y: (each.task.point[2] * Math.sqrt(3)) / 2, log: Math.max(Math.log10(each.ratio[0] || 1e-3), -3), setting: each.task.label, ratio: numbers.interval(each.ratio), verdict: WORDS[each.verdict] }));
    charts.draw(chart, (c, width) => ({
      data: { values }, columns: Math.max(Math.floor(width / 230), 1), facet: { field: "label", type: "nominal", title: null, sort: labels },
      spec: {
        width: 180, height: 156, mark: { type: "circle", size: 110, opacity: 1 },
        encoding: { x: { field: "x", type: "quantitative", scale: { domain: [0, 1] }, axis: null }, y: { field: "y", type: "quantitative", scale: { domain: [0, 0.87] }, axis: null }, color: { field: "log", type: "quantitative", scale: { domain: [-2, 0, 2], range: ["#1a9c75", "#9aa3af", "#d9742b"], interpolate: "rgb", clamp: true }, legend: { title: "ratio", orient: "top", values: [-2, -1, 0, 1, 2], labelExpr: "datum.value == 0 ? '1' : format(pow(10, datum.value), '~g')" } }, tooltip: [{ field: "label", title: "estimator" }, { field: "setting" }, { field: "ratio", title: "ratio" }, { field: "verdict", title: "verdict" }] },
      },
    }), "gradest-simplex");
  };
  const show = () => {
    restore();
    ({ "": ranking, plane, tasks, along })[chosen.view]();
  };
  form.addEventListener("change", () => { const focused = document.activeElement; const [name, value] = [focused.name, focused.value]; save(); show(); form.querySelector(`input[name="${CSS.escape(name || "")}"][value="${CSS.escape(value || "")}"]`)?.focus({ preventScroll: true }); });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("pick").addEventListener("change", () => {
    const boxes = [...document.querySelectorAll("#pick .checks input")];
    const on = boxes.filter((box) => box.checked).map((box) => box.value);
    picked = on.length === boxes.length ? null : new Set(on.length ? on : ["-"]);
    save();
    show();
  });
  for (const button of document.querySelectorAll("#pick [data-pick]")) button.addEventListener("click", () => { picked = button.dataset.pick === "all" ? null : new Set(["-"]); save(); show(); });
  addEventListener("hashchange", show);
  show();
})();
